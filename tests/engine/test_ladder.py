"""The ladder: down after half a second of drops, up after thirty without."""

from __future__ import annotations

import pytest

from streamlift.clock import ManualClock
from streamlift.engine.ladder import Ladder, PresetChoice, Rung, take_rung
from streamlift.engine.stabilise import Stabiliser
from streamlift.frames import Stabilise
from streamlift.upscalers.compact import Effort


def test_half_a_second_of_drops_steps_down_once() -> None:
    clock = ManualClock()
    ladder = Ladder(clock)
    assert _drop_for(ladder, clock, 0.4) == []
    assert _drop_for(ladder, clock, 0.3) == [Rung.UNSTEADIED]


def test_lasting_drops_walk_to_the_bottom_and_stay_there() -> None:
    clock = ManualClock()
    ladder = Ladder(clock)
    expected = [Rung.UNSTEADIED, Rung.SMALL, Rung.FAST_CODING, Rung.BICUBIC]
    assert _drop_for(ladder, clock, 20) == expected
    assert ladder.degraded


def test_a_hiccup_is_no_strain() -> None:
    clock = ManualClock()
    ladder = Ladder(clock)
    for _ in range(20):
        assert ladder.note_drops(3) is None
        clock.advance(1.5)
    assert ladder.rung is Rung.FULL


def test_no_drop_is_no_strain() -> None:
    clock = ManualClock()
    ladder = Ladder(clock)
    for _ in range(100):
        assert ladder.note_drops(0) is None
        clock.advance(0.1)


def test_thirty_quiet_seconds_step_up_one_rung() -> None:
    clock = ManualClock()
    ladder = Ladder(clock)
    _drop_for(ladder, clock, 1.5)
    assert ladder.rung is Rung.SMALL
    assert _run_for(ladder, clock, 29) == []
    assert _run_for(ladder, clock, 2) == [Rung.UNSTEADIED]


def test_a_failed_step_up_makes_the_next_wait_longer_each_time() -> None:
    clock = ManualClock()
    ladder = Ladder(clock)
    waits = []
    for _ in range(5):
        _drop_for(ladder, clock, 0.8)
        began = clock.now_s()
        while ladder.note_frame() is None:
            clock.advance(0.5)
        waits.append(round(clock.now_s() - began, -1))
    assert waits == [30, 60, 120, 240, 240]


def test_a_long_quiet_time_at_the_top_forgives_failed_steps() -> None:
    clock = ManualClock()
    ladder = Ladder(clock)
    for _ in range(2):
        _drop_for(ladder, clock, 0.8)
        _run_for(ladder, clock, 65)
    _run_for(ladder, clock, 300)
    _drop_for(ladder, clock, 0.8)
    assert _run_for(ladder, clock, 31) == [Rung.FULL]


def test_where_nothing_steadies_that_is_no_step() -> None:
    clock = ManualClock()
    ladder = Ladder(clock, without=(Rung.UNSTEADIED,))
    assert _drop_for(ladder, clock, 10) == [Rung.SMALL, Rung.FAST_CODING, Rung.BICUBIC]
    assert _run_for(ladder, clock, 32) == [Rung.FAST_CODING]


def test_it_begins_where_the_plan_says_and_rises_when_there_is_room() -> None:
    clock = ManualClock()
    ladder = Ladder(clock, begin=Rung.SMALL)
    assert ladder.rung is Rung.SMALL
    assert _run_for(ladder, clock, 62) == [Rung.UNSTEADIED, Rung.FULL]
    assert _run_for(ladder, clock, 400) == []


def test_an_encoder_that_keeps_up_keeps_its_preset() -> None:
    choice = PresetChoice(ManualClock(), "superfast")
    assert {choice.next(0.05) for _ in range(100)} == {"superfast"}


def test_a_picture_that_waited_for_its_encoder_brings_the_fastest_preset_for_half_a_minute() -> (
    None
):
    clock = ManualClock()
    choice = PresetChoice(clock, "superfast")
    assert choice.next(0.25) == "ultrafast"
    seen = []
    for _ in range(32):
        clock.advance(1.0)
        seen.append(choice.next(0.0))
    assert seen == ["ultrafast"] * 30 + ["superfast"] * 2


class _Session:
    effort = Effort.FULL


@pytest.mark.parametrize(
    ("rung", "half_flow", "strength", "effort"),
    [
        (Rung.FULL, False, Stabilise.LITE, Effort.FULL),
        (Rung.UNSTEADIED, True, Stabilise.OFF, Effort.FULL),
        (Rung.SMALL, True, Stabilise.OFF, Effort.SMALL),
        (Rung.FAST_CODING, True, Stabilise.OFF, Effort.SMALL),
        (Rung.BICUBIC, True, Stabilise.OFF, Effort.BICUBIC),
    ],
)
def test_each_rung_sets_stabiliser_and_session(
    rung: Rung, half_flow: bool, strength: Stabilise, effort: Effort
) -> None:
    session, stabiliser = _Session(), Stabiliser(Stabilise.LITE)
    take_rung(rung, session=session, stabiliser=stabiliser, strength=Stabilise.LITE)
    assert (stabiliser.half_flow, stabiliser.strength) == (half_flow, strength)
    assert session.effort is effort


def test_a_session_that_cannot_spend_less_is_left_alone() -> None:
    take_rung(Rung.SMALL, session=object(), stabiliser=None, strength=Stabilise.LITE)


def _drop_for(ladder: Ladder, clock: ManualClock, seconds: float) -> list[Rung]:
    return [r for _ in range(round(seconds * 10)) if (r := _later(ladder.note_drops, clock))]


def _run_for(ladder: Ladder, clock: ManualClock, seconds: float) -> list[Rung]:
    changes = []
    for _ in range(round(seconds * 10)):
        rung = ladder.note_frame()
        clock.advance(0.1)
        if rung is not None:
            changes.append(rung)
    return changes


def _later(note: object, clock: ManualClock) -> Rung | None:
    assert callable(note)
    rung = note()
    clock.advance(0.1)
    assert rung is None or isinstance(rung, Rung)
    return rung
