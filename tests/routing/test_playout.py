"""The queue between the shown lane and the viewers."""

from __future__ import annotations

from tests.routing.fakes import H264, SMALL, FakeBackend, encoded

from streamlift.clock import ManualClock
from streamlift.frames import Codec, Rendition
from streamlift.routing.open_lane import Delivered, OpenLane, Purpose
from streamlift.routing.playout import PENDING_FRAMES, Playout

STEP = 3600
VP8 = Rendition(Codec.VP8, 3_000_000, "")
LANE = OpenLane("a", FakeBackend(ManualClock(), "a"), SMALL, Purpose())


def ready(n: int, *, leads: bool = True) -> Delivered:
    return Delivered(encoded(n * STEP, rendition=H264 if leads else VP8), LANE, leads)


def shown(group: list[Delivered]) -> list[tuple[int, bool]]:
    return [(one.pts // STEP, one.leads) for one in group]


def test_without_an_aim_a_picture_goes_out_at_once() -> None:
    playout = Playout()
    assert playout.wait_s(0.0, None) is None
    playout.put(ready(0))
    assert playout.wait_s(0.0, None) == 0.0
    assert shown(playout.take(0.0, None)) == [(0, True)]
    assert playout.take(0.0, None) == []
    assert (playout.last_pts, playout.last_s) == (0, 0.0)


def test_with_an_aim_it_waits_until_it_is_due() -> None:
    playout = Playout()
    playout.put(ready(0))
    playout.take(1.0, 1.0)
    playout.put(ready(1))
    assert playout.take(1.01, 1.0) == []
    wait_s = playout.wait_s(1.01, 1.0)
    assert wait_s is not None
    assert 0.02 < wait_s < 0.04
    assert shown(playout.take(1.04, 1.0)) == [(1, True)]


def test_other_renditions_go_out_with_their_picture_or_right_after_it() -> None:
    playout = Playout()
    playout.put(ready(0, leads=False))
    assert playout.take(0.0, None) == []
    playout.put(ready(0))
    assert shown(playout.take(0.0, None)) == [(0, True), (0, False)]
    playout.put(ready(0, leads=False))
    assert shown(playout.take(0.0, None)) == [(0, False)]


def test_nothing_is_dropped_but_by_forgetting() -> None:
    playout = Playout()
    for n in range(3):
        playout.put(ready(n))
    assert playout.pending_before(STEP)
    assert not playout.pending_before(0)
    assert playout.forget() == [0, STEP, 2 * STEP]
    assert playout.take(9.0, None) == []


def test_more_than_its_bound_is_never_held_back() -> None:
    playout = Playout()
    playout.put(ready(0))
    playout.take(0.0, 100.0)
    for n in range(1, PENDING_FRAMES + 3):
        playout.put(ready(n))
    assert [one.pts // STEP for _ in range(3) for one in playout.take(0.0, 100.0)] == [1, 2]


def test_at_the_end_everything_goes_out_in_order() -> None:
    playout = Playout()
    for n in range(3):
        playout.put(ready(n))
        playout.put(ready(n, leads=False))
    out = shown(playout.take_all(0.0))
    assert out == [(n, leads) for n in range(3) for leads in (True, False)]
