"""The clocks."""

from __future__ import annotations

import re
from pathlib import Path

import streamlift
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


WALL = re.compile(r"\btime\.time\b|\bdatetime\.now\b|\bgmtime\b|\butcnow\b")
TELLS_THE_HOUR = {
    "cli/logs.py",  # when a line was written
    "cluster/trust.py",  # when a certificate ends
    "media/files/record.py",  # the name of a file
    "routing/events.py",  # when an event was
    "service/grants.py",  # when a link ends
    "service/parts.py",  # when TURN credentials end
    "service/pushes.py",  # RTCP sender reports, which tie pictures and sound to wall time
}


def test_media_knows_no_time_of_day_so_clocks_may_jump() -> None:
    """Fault 28: whoever sets the machine's clock changes names and ends, never a picture."""
    root = Path(streamlift.__file__).parent
    found = {
        str(path.relative_to(root)) for path in root.rglob("*.py") if WALL.search(path.read_text())
    }
    assert found <= TELLS_THE_HOUR
