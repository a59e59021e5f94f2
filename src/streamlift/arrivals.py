"""The rate of what comes in bursts. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

__all__ = ["FIRST_GUESS_FPS", "Arrivals", "arrival_rate"]

WINDOW_S = 5.0
FIRST_GUESS_FPS = 16.0
"""LongLive's own rate; used until a rate can be measured."""
_MEASURABLE_S = 0.25


class Arrivals:
    """When frames came in the last five seconds."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque()  # when, and the wait before it
        self._last_s: float | None = None

    def note(self, now_s: float) -> None:
        """A frame came in."""
        wait_s = math.inf if self._last_s is None else now_s - self._last_s
        self._last_s = now_s
        self._recent.append((now_s, wait_s))
        while self._recent[0][0] < now_s - WINDOW_S:
            self._recent.popleft()

    @property
    def rate_fps(self) -> float | None:
        """Frames a second; None until there is enough to measure."""
        return arrival_rate([wait for _, wait in self._recent])


def arrival_rate(waits_s: Sequence[float]) -> float | None:
    """Frames a second from the wait before each frame, even when frames come in bursts.

    It counts from the head of one burst to the head of another, so that no part of a burst is
    counted without the wait before it. A head is a frame after at least half the *usual wait*:
    half of all time is spent in waits up to it. One stall (a cache reset, say) counts as no more
    than two usual waits. The very first frame's wait is infinite. None until there is enough to
    measure.
    """
    usual_s = _usual_wait([wait for wait in waits_s if math.isfinite(wait)])
    heads = [index for index, wait in enumerate(waits_s) if wait >= usual_s / 2]
    if len(heads) < 2:
        return None
    first, last = heads[0], heads[-1]
    elapsed_s = sum(min(wait, 2 * usual_s) for wait in waits_s[first + 1 : last + 1])
    return (last - first) / elapsed_s if elapsed_s >= _MEASURABLE_S else None


def _usual_wait(waits_s: Sequence[float]) -> float:
    half, passed = sum(waits_s) / 2, 0.0
    for wait in sorted(waits_s):
        passed += wait
        if passed >= half:
            return wait
    return 0.0
