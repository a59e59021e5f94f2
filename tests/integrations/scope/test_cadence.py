"""The arithmetic of bursts, without any frame."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlift.integrations.scope.cadence import Backlog, Playout, arrival_rate


def waits_of(times_s: list[float]) -> list[float]:
    return [math.inf, *(b - a for a, b in itertools.pairwise(times_s))]


def bursts(fps: float, size: int, seconds: float) -> list[float]:
    return [size * burst / fps for burst in range(int(seconds * fps / size)) for _ in range(size)]


@pytest.mark.parametrize("fps", [8.0, 16.0, 25.0, 30.0])
def test_even_arrivals_give_their_rate(fps: float) -> None:
    assert arrival_rate(waits_of([i / fps for i in range(100)])) == pytest.approx(fps)


@pytest.mark.parametrize("window_starts_at", range(12))
def test_bursts_give_the_rate_wherever_the_window_cuts_them(window_starts_at: int) -> None:
    waits = waits_of(bursts(16.0, 12, 6.0))
    assert arrival_rate(waits[12 + window_starts_at :]) == pytest.approx(16.0)


def test_nothing_can_be_measured_from_one_burst() -> None:
    assert arrival_rate(waits_of([1.0] * 9)) is None


def test_no_arrivals_give_no_rate() -> None:
    assert arrival_rate([]) is None


def test_one_stall_hardly_changes_the_rate() -> None:
    times = [i / 16.0 + (0.55 if i > 40 else 0.0) for i in range(80)]
    assert arrival_rate(waits_of(times)) == pytest.approx(16.0, rel=0.03)


@given(st.floats(8, 30), st.integers(1, 12), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_jittered_bursts_give_the_rate_within_five_percent(
    fps: float, size: int, seed: int
) -> None:
    jitter = random.Random(seed)
    times = [
        t + delay
        for t in sorted(set(bursts(fps, size, 6.0)))
        for delay in [jitter.uniform(0, 0.1 / fps)]
        for _ in range(size)
    ]
    assert arrival_rate(waits_of(times)) == pytest.approx(fps, rel=0.05)


def test_before_anything_is_measured_the_generators_usual_rate_is_reported() -> None:
    playout = Playout()
    playout.arrived(0.0)
    assert playout.deliver(4, 0.0) == pytest.approx(16.0, rel=0.03)


def test_a_player_that_holds_too_much_plays_faster() -> None:
    playout = Playout()
    rates = []
    for i in range(1, 600):
        playout.arrived(i / 25)
        if i % 4 == 0:
            rates.append(playout.deliver(20 if i == 40 else 4, i / 25))
    # What piled up is played off, then it is even.
    assert max(rates) > 26.5
    assert rates[-1] == pytest.approx(25.0, rel=0.05)


def test_before_a_model_with_delay_takes_over_the_player_is_slowed_until_it_holds_enough() -> None:
    playout, slowest, bridged_s = Playout(), 99.0, None
    for i in range(1, 400):
        now_s = i / 16
        playout.arrived(now_s)
        if i % 4 == 0:
            slowest = min(slowest, playout.deliver(4, now_s, owed=11 if now_s > 5 else None))
            if playout.can_bridge(11, now_s):
                bridged_s = now_s
                break
    assert slowest > 16 / 1.5
    assert bridged_s is not None
    assert bridged_s < 11.0


@pytest.mark.parametrize("burst", [12, 32, 97, 400])
def test_bursts_with_pauses_are_no_backlog(burst: int) -> None:
    backlog, now_s = Backlog(), 0.0
    for _ in range(10):
        for number in range(burst):
            backlog.called(1, now_s)
            assert not backlog.must_skip(4, now_s)
            now_s += 0.04 if number % 4 == 3 else 0.0
            backlog.returned(now_s)
        now_s += 0.3
    assert backlog.largest_burst == burst


def skipped_steps(backlog: Backlog, now_s: float, steps: int) -> list[bool]:
    """Calls without any pause; each step of 8 takes 100 ms."""
    skipped = []
    for call in range(1, 8 * steps + 1):
        backlog.called(1, now_s)
        if call % 8 == 0:
            skipped.append(backlog.must_skip(8, now_s))
            now_s += 0.1
        backlog.returned(now_s)
    return skipped


def test_without_any_pause_every_other_step_is_skipped_in_the_end() -> None:
    skipped = skipped_steps(Backlog(), 0.0, 200)
    first = skipped.index(True)
    assert first == pytest.approx(60, abs=2)  # six seconds
    assert skipped[first : first + 40] == [True, False] * 20


def test_a_source_whose_bursts_are_known_is_found_too_fast_much_sooner() -> None:
    backlog, now_s = Backlog(), 0.0
    for _ in range(20):
        backlog.called(12, now_s)
        backlog.returned(now_s + 0.05)
        now_s += 0.75
    skipped = skipped_steps(backlog, now_s, 40)
    assert skipped.index(True) == pytest.approx(11, abs=2)
