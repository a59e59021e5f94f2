"""The clocks."""

from __future__ import annotations

from streamlift.clock import VIDEO_CLOCK_HZ, ManualClock, MonotonicClock


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(5.0)
    assert clock.now_s() == clock.now_s() == 5.0
    clock.advance(0.25)
    assert clock.now_s() == 5.25


def test_the_monotonic_clock_never_goes_back() -> None:
    clock = MonotonicClock()
    times = [clock.now_s() for _ in range(100)]
    assert times == sorted(times)


def test_the_video_clock_is_the_one_of_rtp() -> None:
    assert VIDEO_CLOCK_HZ == 90_000
