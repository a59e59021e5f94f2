"""Bursts go out evenly, at the mean rate at which they come, and nothing waits for ever."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlift.client.pacing import Pacer


def longlive(fps: float, seconds: float) -> Iterator[float]:
    """9 frames, then 12 at once."""
    number = 0
    while number / fps < seconds:
        size = 12 if number else 9
        yield from [number / fps] * size
        number += size


def bursts(fps: float, size: int, seconds: float) -> Iterator[float]:
    for burst in range(int(seconds * fps / size)):
        yield from [burst * size / fps] * size


def played(arrivals: Iterable[float], fps: float | None = None) -> list[tuple[float, float]]:
    """When each frame came and when it went out."""
    pacer = Pacer(fps)
    waiting: list[float] = []
    out: list[tuple[float, float]] = []
    due_s: float | None = None

    def until(now_s: float) -> None:
        nonlocal due_s
        while waiting and due_s is not None and due_s <= now_s:
            out.append((waiting.pop(0), due_s))
            due_s = pacer.next_due_s(due_s) if waiting else None

    for arrival_s in arrivals:
        until(arrival_s)
        pacer.arrived(len(waiting), arrival_s)
        waiting.append(arrival_s)
        if due_s is None:
            due_s = pacer.next_due_s(arrival_s)
    until(1e9)
    return out


def gaps(out: list[tuple[float, float]], after_s: float) -> list[float]:
    return [b - a for (_, a), (_, b) in pairwise(out) if a >= after_s]


@pytest.mark.parametrize("fps", [8.0, 16.0, 25.0, 30.0])
def test_longlives_bursts_go_out_evenly_at_their_mean_rate(fps: float) -> None:
    out = played(longlive(fps, 20))
    settled = gaps(out, 6)
    assert max(settled) < 1.25 / fps
    assert min(settled) > 0.8 / fps
    assert len(settled) / sum(settled) == pytest.approx(fps, rel=0.03)


@pytest.mark.parametrize(("fps", "size"), [(16.0, 1), (16.0, 4), (16.0, 32), (24.0, 97)])
def test_bursts_of_any_size_lose_nothing_and_wait_no_longer_than_they_are_long(
    fps: float, size: int
) -> None:
    arrivals = list(bursts(fps, size, 40))
    out = played(arrivals)
    assert [came for came, _ in out] == arrivals
    assert all(went >= came for came, went in out)
    waited = [went - came for came, went in out if came > 20]
    assert max(waited) < size / fps + 0.3
    assert max(gaps(out, 20)) < 1.5 / fps


def test_a_generator_that_becomes_slower_and_faster_is_followed() -> None:
    slow = list(longlive(8, 20))
    fast = [slow[-1] + 12 / 8 + t for t in longlive(24, 20)]
    out = played([*slow, *fast])
    settled = [went - came for came, went in out if came > fast[0] + 14]
    assert max(settled) < 12 / 24 + 0.35
    last = gaps(out, fast[0] + 14)
    assert len(last) / sum(last) == pytest.approx(24, rel=0.05)


def test_a_stall_is_a_gap_once_and_no_delay_for_ever() -> None:
    before = list(longlive(16, 10))
    stalled = [before[-1] + 12 / 16 + 2.0 + t for t in bursts(16, 12, 20)]
    out = played([*before, *stalled])
    assert max(went - came for came, went in out if came > stalled[0] + 10) < 12 / 16 + 0.35


def test_a_fixed_rate_is_kept_whatever_comes() -> None:
    out = played([0.0] * 100, fps=20)
    assert gaps(out, 0) == pytest.approx([0.05] * 99)


def test_a_frame_that_comes_too_late_goes_out_at_once() -> None:
    out = played([0.0, 0.04, 5.0, 5.04], fps=25)
    assert [went for _, went in out] == pytest.approx([0.0, 0.04, 5.0, 5.04])


@given(st.floats(8, 30), st.integers(1, 24), st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_jittered_bursts_neither_pile_up_nor_run_apart(fps: float, size: int, seed: int) -> None:
    jitter = random.Random(seed)
    arrivals = sorted(
        t + delay
        for t in sorted(set(bursts(fps, size, 30)))
        for delay in [jitter.uniform(0, 0.3 * size / fps)]
        for _ in range(size)
    )
    out = played(arrivals)
    assert len(out) == len(arrivals)
    assert max(went - came for came, went in out if came > 15) < 1.6 * size / fps + 0.4
