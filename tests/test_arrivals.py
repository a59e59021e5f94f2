"""The rate of what comes in bursts, without any frame."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlift.arrivals import arrival_rate


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
