"""Engine, encoders and event loop together stay below the cores there are, less a tenth."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlift.clock import ManualClock
from streamlift.engine.cpu_budget import CpuBudget


def run(cores: int, wanted_cores: float, seconds: float = 20.0) -> tuple[CpuBudget, float]:
    """Threads that would use `wanted_cores` for all frames; the use of the last second."""
    clock, used = ManualClock(), 0.0
    budget = CpuBudget(cores, clock, thread_s=lambda: used)
    budget.note()
    uses = []
    for _ in range(int(seconds / 0.04)):
        clock.advance(0.04)
        used += 0.04 * wanted_cores * budget.most()
        uses.append(wanted_cores * budget.most())
        budget.note()
    return budget, max(uses[-250:])


@settings(max_examples=30)
@given(st.integers(1, 16), st.floats(0.0, 0.89))
def test_while_there_is_room_nothing_is_left_out(cores: int, part: float) -> None:
    budget, _ = run(cores, cores * part)
    assert budget.most() == 1.0


@settings(max_examples=30)
@given(st.integers(1, 16), st.floats(0.95, 4.0))
def test_more_than_the_cores_less_a_tenth_is_never_used_for_long(cores: int, part: float) -> None:
    _, most_used = run(cores, cores * part)
    assert most_used < cores * 0.9 * 1.05


def test_when_the_load_is_gone_all_frames_are_taken_again() -> None:
    clock, used = ManualClock(), 0.0
    budget = CpuBudget(2, clock, thread_s=lambda: used)
    budget.note()
    clock.advance(0.6)
    used = 2.4
    budget.note()
    assert budget.most() == pytest.approx(0.45)
    for _ in range(100):
        clock.advance(0.5)
        budget.note()
    assert budget.most() == 1.0


def test_lanes_that_give_way_are_left_out_before_any_frame_of_a_stream() -> None:
    clock, used = ManualClock(), 0.0
    budget = CpuBudget(2, clock, thread_s=lambda: used)
    budget.note()
    budget.guest_came()
    for _ in range(100):  # own lanes 1.2 cores, a guest 1.2 more
        clock.advance(0.1)
        used += 0.1 * (1.2 * budget.most() + 1.2 * budget.most_of_guests())
        budget.note()
        assert budget.most() == 1.0
    assert budget.most_of_guests() < 0.6
    budget.guest_left()
    assert budget.most_of_guests() == 1.0


def test_where_a_guest_is_not_to_blame_the_streams_are_left_out_as_before() -> None:
    clock, used = ManualClock(), 0.0
    budget = CpuBudget(2, clock, thread_s=lambda: used)
    budget.note()
    budget.guest_came()
    for _ in range(100):
        clock.advance(0.1)
        used += 0.1 * 3.6 * budget.most()
        budget.note()
    assert budget.most() < 0.55
    assert budget.most_of_guests() <= 0.05
