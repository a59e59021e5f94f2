"""Even playout, simulated."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

import pytest

from streamlift.routing.pacing import Offsets, Pace


def played(
    frames: Iterator[tuple[int, float]], offsets: Offsets | None = None
) -> list[tuple[int, float, float]]:
    """Play (pts, ready time) out as `Playout` does; gives (pts, ready time, time it went out)."""
    offsets, pace, out = offsets or Offsets(), Pace(), []
    now_s, waiting = -math.inf, list[tuple[int, float]]()
    for pts, ready_s in [*frames, (-1, math.inf)]:
        while waiting:
            due_s = max(now_s, waiting[0][1], pace.due_s(waiting[0][0], offsets.aim))
            if due_s > ready_s:
                break  # the aim may change with the next frame
            first_pts, first_ready_s = waiting.pop(0)
            now_s = due_s
            pace.went_out(first_pts, now_s)
            out.append((first_pts, first_ready_s, now_s))
        if pts >= 0:
            offsets.observe(pts, ready_s)
            waiting.append((pts, ready_s))
    return out


def stepped(
    count: int,
    *,
    fps: float = 25.0,
    burst: int = 1,
    step: int = 1,
    lag: int = 0,
    compute_s: float = 0.015,
    jitter_s: float = 0.0,
    drift: float = 0.0,
    start: int = 0,
) -> Iterator[tuple[int, float]]:
    """Frames of a publisher in bursts, through a lane that takes `step` frames at once."""
    chance = random.Random(7)
    taken = list[tuple[int, float]]()
    ready_s = 0.0
    for n in range(start, start + count):
        arrived_s = ((n // burst) * burst + burst - 1) / fps * (1 + drift)
        taken.append((round(n * 90_000 / fps), arrived_s))
        if len(taken) >= step + lag:
            ready_s = max(ready_s, arrived_s) + compute_s + chance.random() * jitter_s
            for pts, _ in taken[:step]:
                yield pts, ready_s
            taken = taken[step:]


def spacings(out: list[tuple[int, float, float]], skip: int = 0) -> list[float]:
    times = [went_s for _, _, went_s in out][skip:]
    return sorted(b - a for a, b in itertools.pairwise(times))


def p95(values: list[float]) -> float:
    return values[int(0.95 * len(values))]


@pytest.mark.parametrize(
    ("burst", "step", "lag"), [(1, 8, 4), (12, 1, 0), (12, 8, 4), (4, 8, 4), (1, 2, 1), (9, 5, 1)]
)
@pytest.mark.parametrize("fps", [24.0, 25.0, 30.0])
def test_bursts_and_steps_come_out_even(burst: int, step: int, lag: int, fps: float) -> None:
    out = played(stepped(int(40 * fps), fps=fps, burst=burst, step=step, lag=lag, jitter_s=0.02))
    settled = spacings(out, skip=int(6 * fps))
    assert p95(settled) < 1.5 / fps
    assert max(settled) < 2.5 / fps
    assert sum(settled) / len(settled) == pytest.approx(1 / fps, rel=0.01)


def test_an_even_lane_is_not_delayed() -> None:
    out = played(stepped(1500, jitter_s=0.012))
    assert max(went_s - ready_s for _, ready_s, went_s in out) < 0.005


def test_a_stall_of_an_even_lane_is_caught_up_within_half_a_second() -> None:
    frames = list(stepped(500))
    stalled = [(pts, max(ready_s, 10.3) if ready_s > 10.0 else ready_s) for pts, ready_s in frames]
    out = played(iter(stalled))
    late = [(ready_s, went_s) for _, ready_s, went_s in out if went_s - ready_s > 0.005]
    assert max(went_s - ready_s for ready_s, went_s in late) < 0.2
    assert all(10.3 <= went_s < 10.8 for _, went_s in late)


def test_repeated_stalls_of_an_even_lane_delay_nothing_else() -> None:
    frames = [(pts, ready_s + max(0.0, 0.25 - ready_s % 2.0)) for pts, ready_s in stepped(1000)]
    added = sorted(went_s - ready_s for _, ready_s, went_s in played(iter(frames)))
    assert added[int(0.7 * len(added))] < 0.005


def test_the_added_delay_is_bounded_by_the_lanes_own_unevenness() -> None:
    out = played(stepped(2000, step=8, lag=4))
    added = [went_s - ready_s for _, ready_s, went_s in out[200:]]
    assert max(added) < 8 / 25 + 0.02
    assert sum(added) / len(added) < 4 / 25 + 0.02


def test_an_overload_does_not_make_viewers_wait_for_its_worst_frames() -> None:
    chance = random.Random(3)
    ready_s, frames = 0.0, list[tuple[int, float]]()
    for n in range(1000):
        slow = 0.6 if chance.random() < 0.03 else 0.01
        ready_s = max(ready_s, n / 25) + slow
        frames.append((n * 3600, ready_s))
    out = played(iter(frames))
    added = sorted(went_s - ready_s for _, ready_s, went_s in out)
    assert added[len(added) // 2] < 0.25
    assert added[-1] < 0.9


@pytest.mark.parametrize("drift", [-200e-6, 200e-6])
def test_a_drifting_clock_is_followed_for_an_hour(drift: float) -> None:
    out = played(stepped(25 * 3600, step=8, lag=4, drift=drift))
    end = [went_s - ready_s for _, ready_s, went_s in out[-1000:]]
    begin = [went_s - ready_s for _, ready_s, went_s in out[1000:2000]]
    assert sum(end) / 1000 == pytest.approx(sum(begin) / 1000, abs=0.005)
    assert p95(spacings(out, skip=1000)) < 1.5 / 25


@pytest.mark.parametrize(("before", "after"), [(25.0, 12.5), (12.5, 25.0), (30.0, 20.0)])
def test_a_publisher_that_changes_rate_is_followed(before: float, after: float) -> None:
    first = list(stepped(int(10 * before), fps=before, step=8, lag=4))
    shift_pts, shift_s = first[-1][0] + round(90_000 / before), first[-1][1]
    second = [
        (pts + shift_pts, ready_s + shift_s - 0.3)
        for pts, ready_s in stepped(int(40 * after), fps=after, step=8, lag=4)
    ]
    out = played(iter(first + second))
    settled = spacings([one for one in out if one[0] > shift_pts + 90_000 * 20])
    assert p95(settled) < 1.5 / after
    assert sum(settled) / len(settled) == pytest.approx(1 / after, rel=0.01)


def test_the_delay_changes_by_small_steps_only() -> None:
    pace = Pace()
    pace.went_out(0, 1.0)
    for n in range(1, 30):
        due_s = pace.due_s(n * 3600, aim=1.4)
        pace.went_out(n * 3600, due_s)
        assert due_s - 1.0 == pytest.approx(n * 0.05)
    assert pace.offset == pytest.approx(1.29)
    assert pace.due_s(30 * 3600, aim=1.28) == pytest.approx(1.0 + 29 * 0.05 + 0.036)
    assert pace.due_s(30 * 3600, aim=1.0) == pytest.approx(1.0 + 29 * 0.05 + 0.020)


def test_after_a_long_pause_the_next_frame_goes_out_at_once() -> None:
    pace = Pace()
    pace.went_out(0, 1.0)
    assert pace.due_s(90_001 * 2, aim=5.0) == -math.inf
