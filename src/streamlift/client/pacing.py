"""When the frames of a generator go out: evenly, though they come in bursts. Pure."""

from __future__ import annotations

from collections import deque

from streamlift.arrivals import FIRST_GUESS_FPS, Arrivals

__all__ = ["Pacer"]

MIN_FPS, MAX_FPS = 1.0, 120.0
_SPARE_S = 0.1
"""So much may wait when a burst comes: a cushion for one that comes late."""
_LOWEST_OVER_S = 2.0
_CATCH_UP_S = 4.0
_MOST_CATCH_UP = 0.25


class Pacer:
    """Learns the mean rate of what comes (LongLive: 9 frames, then 12 at once, 16 a second) and
    says when each frame is due.

    Frames are due one frame time after another. More of them than a tenth of a second's that still
    wait when a burst comes would be delay for ever, so then they go out up to 25 % faster. A frame
    that comes too late is due at once, and the line goes on from there.
    """

    def __init__(self, fps: float | None = None) -> None:
        """`fps`: keep to exactly that rate, whatever comes."""
        self._fixed_fps = fps
        self._rate_fps = fps or FIRST_GUESS_FPS
        self._arrivals = Arrivals()
        self._lowest: deque[tuple[float, int]] = deque()
        self._last_due_s: float | None = None

    @property
    def rate_fps(self) -> float:
        """Frames a second: the fixed rate, or the one measured; 16 until there is one."""
        return self._rate_fps

    def arrived(self, held: int, now_s: float) -> None:
        """A frame came in while `held` others waited."""
        if self._fixed_fps is not None:
            return
        self._arrivals.note(now_s)
        measured = self._arrivals.rate_fps
        if measured is not None:
            self._rate_fps = min(max(measured, MIN_FPS), MAX_FPS)
        self._lowest.append((now_s, held))
        while self._lowest[0][0] < now_s - _LOWEST_OVER_S:
            self._lowest.popleft()

    def next_due_s(self, now_s: float) -> float:
        """When the next frame goes out, which is here now; at once is `now_s`."""
        if self._last_due_s is None:
            self._last_due_s = now_s
            return now_s
        frame_s = 1 / (self._rate_fps * self._pace())
        due_s = self._last_due_s + frame_s
        if due_s < now_s - frame_s / 2:
            due_s = now_s  # nothing was here when it was due; a loop that woke late is no reason
        self._last_due_s = due_s
        return due_s

    def _pace(self) -> float:
        lowest = min((held for _, held in self._lowest), default=0)
        excess = max(0.0, lowest - max(1.0, _SPARE_S * self._rate_fps))
        return 1 + min(excess / (self._rate_fps * _CATCH_UP_S), _MOST_CATCH_UP)
