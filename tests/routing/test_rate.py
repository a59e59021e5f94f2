"""Rates from pts."""

from __future__ import annotations

import pytest

from streamlift.routing.rate import Rate


@pytest.mark.parametrize("fps", [5.0, 12.5, 25.0, 29.97, 60.0])
def test_the_publishers_rate_is_measured(fps: float) -> None:
    rate = Rate()
    for n in range(200):
        rate.observe(round(n * 90_000 / fps), 1000)
    assert rate.fps == pytest.approx(fps, rel=1e-3)
    assert rate.bitrate_bps == pytest.approx(8000 * fps, rel=1e-3)


def test_a_change_of_rate_is_followed_within_two_seconds() -> None:
    rate = Rate()
    pts = 0
    for fps, seconds in ((25, 10), (10, 2)):
        for _ in range(fps * seconds):
            pts += 90_000 // fps
            rate.observe(pts)
    assert rate.fps == pytest.approx(10, rel=0.1)


def test_a_pause_does_not_count() -> None:
    rate = Rate()
    for n in range(50):
        rate.observe(n * 3600)
    rate.observe(90_000 * 100)
    assert rate.fps is None
