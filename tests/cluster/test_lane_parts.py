"""A lane of which one part dies of what nobody foresaw ends, on the worker and on the anchor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.waiting import until

pytest.importorskip("grpc", reason="needs the extra cluster")

from tests.cluster.served import Reader, frames_now, wanted
from tests.engine.frames import H264, SMALL

from streamlift.cluster import serving_lane
from streamlift.cluster.serving_lane import Outbox, ServedLane
from streamlift.cluster.wire import convert
from streamlift.errors import UpscaleError, WorkerLost

Worker = Callable[..., Any]


def broken(*_: object) -> None:
    raise ValueError("nobody foresaw this")


@pytest.mark.parametrize(
    ("where", "name"),
    [(convert, "picture_frame"), (ServedLane, "_held_s"), (ServedLane, "_returned")],
)
async def test_a_part_that_dies_on_the_worker_ends_the_lane(
    worker: Worker, where: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await worker("bicubic")
    backend = await served.linked()
    lane = await backend.open_lane(SMALL, wanted())
    reader = Reader(lane)
    if name == "_returned":  # it is called for the last message, too
        told, original = [], ServedLane._returned

        def once(self: ServedLane) -> Any:
            told.append(1)
            return broken() if len(told) == 1 else original(self)

        monkeypatch.setattr(where, name, once)
    else:
        monkeypatch.setattr(where, name, broken)
    for frame in frames_now(0, 3):
        lane.offer(frame)
    error = await reader.ended()
    assert type(error) is UpscaleError
    assert str(error) == "the worker failed: nobody foresaw this"
    await backend.aclose()


@pytest.mark.parametrize("name", ["picture_bytes", "encoded_frame"])
async def test_a_part_that_dies_on_the_anchor_ends_the_lane(
    worker: Worker, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await worker("bicubic")
    backend = await served.linked()
    lane = await backend.open_lane(SMALL, wanted())
    reader = Reader(lane)
    monkeypatch.setattr(convert, name, broken)
    for frame in frames_now(0, 3):
        lane.offer(frame)
    error = await reader.ended()
    assert type(error) is WorkerLost
    assert str(error) == "the link failed: nobody foresaw this"
    await backend.aclose()


async def test_a_lane_of_which_nothing_is_wanted_is_not_taken_for_a_slow_link(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    outboxes: list[Outbox] = []
    made = Outbox.__init__

    def keep(self: Outbox, *arguments: Any) -> None:
        made(self, *arguments)
        outboxes.append(self)

    monkeypatch.setattr(Outbox, "__init__", keep)
    served = await worker("bicubic")
    backend = await served.linked()
    lane = await backend.open_lane(SMALL, wanted())
    reader = Reader(lane)
    (out,) = outboxes
    # As after an overflow.
    out._broken.add(serving_lane._format(H264))
    out.full_since_s = 1e9
    lane.set_renditions(frozenset())
    await until(lambda: out.full_since_s is None, "the worker to hear of it")
    assert not reader.task.done()
    await backend.aclose()
