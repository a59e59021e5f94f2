"""Telling a hung lane from a collecting one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlift.routing.watchdog import Watchdog


def worked(
    dog: Watchdog, frames: int, step: int, compute_s: float, fps: float = 25.0
) -> tuple[float, bool]:
    """A lane that answers once a step is there; the time of its last answer, and if it ever
    seemed hung."""
    happens = [(n / fps, "offer") for n in range(frames)]
    happens += [(n / fps + compute_s, "answer") for n in range(0, frames, step)]
    hung = False
    for now_s, what in sorted(happens):
        hung |= dog.hung(now_s)
        if what == "offer":
            dog.offered(now_s)
        else:
            dog.answered(now_s)
    return max(now_s for now_s, what in happens if what == "answer"), hung


@pytest.mark.parametrize(
    ("step", "compute_s"), [(1, 0.01), (1, 0.035), (8, 0.03), (8, 0.3), (12, 0.4)]
)
def test_a_working_lane_is_never_hung(step: int, compute_s: float) -> None:
    assert not worked(Watchdog(), 500, step, compute_s)[1]


def test_a_silent_per_frame_lane_is_hung_after_a_fifth_of_a_second() -> None:
    dog = Watchdog()
    worked(dog, 100, 1, 0.01)
    dog.offered(4.0)
    assert not dog.hung(4.15)
    assert dog.hung(4.22)


def test_a_silent_chunked_lane_is_hung_after_its_period_and_a_fifth_of_a_second() -> None:
    dog = Watchdog()
    answered_s, _ = worked(dog, 97, 8, 0.02)
    for n in range(97, 140):
        if dog.hung(n / 25):
            break
        dog.offered(n / 25)
    assert n / 25 - answered_s == pytest.approx(8 / 25 + 0.2, abs=0.05)


def test_nothing_is_expected_of_a_lane_that_was_given_nothing() -> None:
    dog = Watchdog()
    worked(dog, 100, 1, 0.01)
    assert not dog.hung(1e6)


def test_a_lane_that_never_answers_is_hung_after_three_seconds() -> None:
    dog = Watchdog()
    for n in range(100):
        dog.offered(1.0 + n / 25)
        assert dog.hung(1.0 + n / 25) == (n > 75)


@given(
    st.integers(1, 16),
    st.lists(st.floats(0, 0.03), min_size=300, max_size=300),
    st.sampled_from([8.0, 12.0, 25.0, 30.0, 60.0]),
)
def test_jitter_raises_no_alarm(step: int, jitters: list[float], fps: float) -> None:
    dog, ready_s = Watchdog(), float("-inf")
    for n, jitter_s in enumerate(jitters):
        now_s = n / fps
        if ready_s <= now_s:
            dog.answered(ready_s)
            ready_s = float("inf")
        assert not dog.hung(now_s)
        dog.offered(now_s)
        if n % step == 0:
            ready_s = now_s + 0.01 + jitter_s
