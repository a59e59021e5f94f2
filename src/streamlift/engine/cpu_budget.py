"""Keeps engine, encoders and event loop together below the cores that there are, less a tenth."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from streamlift.clock import Clock

__all__ = ["CpuBudget", "usable_cores"]

SHARE = 0.9
"""Of all cores: the rest is for decoding, for the system and for a hiccup."""
REVIEW_S = 0.5
LEAST_KEPT = 0.05
RISE = 1.02
"""A review, while there is room; from half of the frames to all takes 18 s."""
GUESTS_FALL, GUESTS_RISE = 0.25, 1.1
"""Of lanes that give way, a review; from none to all takes 16 s."""


class CpuBudget:
    """One for a process. Threads that work for streams call `note` after each piece of work.

    While they take more than `cores` less a tenth, a part of all frames is left out, the same in
    each lane, and before that nearly all of the guests' (`guest_came`). Only what those threads
    use is counted, not what else runs in the process.
    """

    def __init__(
        self, cores: int, clock: Clock, *, thread_s: Callable[[], float] = time.thread_time
    ) -> None:
        """`thread_s`: processor seconds of the calling thread."""
        self._allowed = SHARE * cores
        self._clock = clock
        self._thread_s = thread_s
        self._known = threading.local()
        self._lock = threading.Lock()
        self._spent_s = 0.0
        self._since_s = clock.now_s()
        self._kept = self._kept_of_guests = 1.0
        self._guests = 0

    def most(self) -> float:
        """Which part of the frames there is time for, 0 to 1."""
        return self._kept

    def most_of_guests(self) -> float:
        """The same for lanes that are only looked at beside others."""
        return min(self._kept, self._kept_of_guests)

    def guest_came(self) -> None:
        """A lane that gives way was opened."""
        with self._lock:
            self._guests += 1

    def guest_left(self) -> None:
        with self._lock:
            self._guests -= 1
            if not self._guests:
                self._kept_of_guests = 1.0

    def note(self) -> None:
        """Count what the calling thread has used since it last called."""
        used_s = self._thread_s()
        before_s = getattr(self._known, "used_s", used_s)
        self._known.used_s = used_s
        with self._lock:
            self._spent_s += used_s - before_s
            passed_s = self._clock.now_s() - self._since_s
            if passed_s < REVIEW_S:
                return
            over = self._spent_s / passed_s / self._allowed
            self._spent_s, self._since_s = 0.0, self._clock.now_s()
            if over > 1.0 and self._guests and self._kept_of_guests > LEAST_KEPT:
                self._kept_of_guests = max(LEAST_KEPT, self._kept_of_guests * GUESTS_FALL)
            elif over > 1.0:
                self._kept = max(LEAST_KEPT, self._kept / over)
            elif over * RISE < 1.0 and self._kept < 1.0:
                self._kept = min(1.0, self._kept * RISE)
            elif over * GUESTS_RISE < 1.0:
                self._kept_of_guests = min(1.0, self._kept_of_guests * GUESTS_RISE)


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
