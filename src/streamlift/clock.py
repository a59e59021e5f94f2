"""The one source of time: a monotonic clock that is passed in, so that tests can own it."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["VIDEO_CLOCK_HZ", "Clock", "ManualClock", "MonotonicClock"]

VIDEO_CLOCK_HZ = 90_000
"""Ticks per second of every pts in the service (RFC 6184 section 8.2.1)."""


class Clock(Protocol):
    """Monotonic time in seconds; its zero has no meaning."""

    def now_s(self) -> float: ...


class MonotonicClock:
    """The machine's monotonic clock: it never jumps when the wall clock is set."""

    def now_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock for tests and simulations; it moves only when told to."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now_s(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        self._now_s += seconds
