"""What is left out before a lane: whatever the rule, motion never leads into a picture not seen."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.clips import TICKS
from tests.engine.frames import SMALL, frame

from streamlift.clock import ManualClock
from streamlift.engine.capacity import Capacity, Share, need_pps
from streamlift.engine.inbox import Inbox
from streamlift.frames import Frame, Motion

NO_VECTORS = np.zeros(0, np.dtype([("source", np.int32)]))
FRAMES = [frame(number) for number in range(3)]


def moving(number: int, arrived_s: float) -> Frame:
    """Frame `number`, with motion that leads to the one before."""
    motion = Motion(NO_VECTORS, (number - 1) * TICKS) if number else None
    return replace(FRAMES[0], pts=number * TICKS, arrived_s=arrived_s, motion=motion)


def leads_to(taken: Frame) -> int | None:
    """The pts at the end of a frame's chain of motion."""
    motion = taken.motion
    while motion is not None and motion.before is not None:
        motion = motion.before
    return None if motion is None else motion.follows


def inbox(clock: ManualClock, share: Share | None = None) -> Inbox:
    return Inbox(
        clock,
        share=share or Capacity(1e12).take(need_pps(SMALL, 25.0)),
        fps=25.0,
        max_age_s=0.5,
    )


def check(seen: int | None, taken: Frame) -> None:
    """Motion leads to the picture seen last, or is of a picture that was not: then it is not used
    (`motion_since`), and only a chain of four or more is given up."""
    left_out = 0 if seen is None else (taken.pts - seen) // TICKS - 1
    if seen is not None and left_out < 4:
        assert leads_to(taken) == seen


@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_frames_that_turns_leave_out_are_chained(admitted: list[bool]) -> None:
    clock = ManualClock(100.0)
    box = inbox(clock)
    decisions = iter(admitted)
    box.thinning.admit = lambda most=1.0: next(decisions)  # type: ignore[method-assign]
    seen: int | None = None
    for number in range(len(admitted)):
        box.put(moving(number, clock.now_s()))
        if (taken := box.take()) is not None:
            check(seen, taken)
            seen = taken.pts
        clock.advance(0.04)
    assert box.dropped.total() == admitted.count(False)


def test_frames_beyond_the_share_are_chained() -> None:
    clock = ManualClock(100.0)
    capacity = Capacity(2 * need_pps(SMALL, 25.0))
    capacity.take(need_pps(SMALL, 25.0))
    box = inbox(clock, capacity.take(need_pps(SMALL, 25.0)))
    seen: int | None = None
    for number in range(150):
        clock.advance(0.02)  # 50 a second, of which half fit
        box.put(moving(number, clock.now_s()))
        if (taken := box.take()) is not None:
            check(seen, taken)
            seen = taken.pts
    assert set(box.dropped) == {"over_share"}


def test_stale_frames_are_chained() -> None:
    clock = ManualClock(100.0)
    box = inbox(clock)
    box.put(moving(0, clock.now_s()))
    assert box.take() is not None
    box.put(moving(1, clock.now_s()))
    box.put(moving(2, clock.now_s()))
    clock.advance(0.6)
    box.put(moving(3, clock.now_s()))
    taken = box.take()
    assert taken is not None
    assert (taken.pts, leads_to(taken)) == (3 * TICKS, 0)
    assert box.dropped == {"stale": 2}


def test_age_counts_from_when_a_frame_is_due_and_not_from_its_arrival() -> None:
    """The last frame of a burst may wait for as long as the burst is, and half a second."""
    clock = ManualClock(100.0)
    box = inbox(clock)
    box.put(replace(moving(0, 100.0), due_s=100.0))
    box.put(replace(moving(1, 100.0), due_s=100.4))
    clock.advance(0.7)
    taken = box.take()
    assert taken is not None
    assert taken.pts == TICKS
    assert box.dropped == {"stale": 1}


@pytest.mark.parametrize("most", [0.5, 0.25])
def test_what_the_machine_has_no_time_for_is_left_out_evenly(most: float) -> None:
    clock = ManualClock(100.0)
    share = Capacity(1e12).take(need_pps(SMALL, 25.0))
    box = Inbox(clock, share=share, fps=25.0, max_age_s=0.5, most=lambda: most)
    taken = []
    for number in range(40):
        box.put(moving(number, clock.now_s()))
        if (one := box.take()) is not None:
            taken.append(one.pts // TICKS)
        clock.advance(0.04)
    assert len(taken) == 40 * most
    assert {b - a for a, b in pairwise(taken)} == {round(1 / most)}
    assert box.dropped == {"overdue": 40 - len(taken)}
