"""Frame and bit rates measured from pts, never assumed."""

from __future__ import annotations

from collections import deque

from streamlift.clock import VIDEO_CLOCK_HZ

__all__ = ["Rate"]

WINDOW = 2 * VIDEO_CLOCK_HZ


class Rate:
    """Rates over the last two seconds of pts; the caller feeds rising pts."""

    __slots__ = ("_bytes", "_frames")

    def __init__(self) -> None:
        self._frames: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def observe(self, pts: int, size_bytes: int = 0) -> None:
        if self._frames and pts - self._frames[-1][0] > WINDOW:
            self.clear()  # a pause says nothing about the rate after it
        self._frames.append((pts, size_bytes))
        self._bytes += size_bytes
        while pts - self._frames[0][0] > WINDOW:
            self._bytes -= self._frames.popleft()[1]

    def clear(self) -> None:
        self._frames.clear()
        self._bytes = 0

    @property
    def fps(self) -> float | None:
        """Frames per second; None until two frames are there."""
        span = self._span()
        return None if span == 0 else (len(self._frames) - 1) * VIDEO_CLOCK_HZ / span

    @property
    def bitrate_bps(self) -> float | None:
        """Bits per second; None until two frames are there."""
        span = self._span()
        if span == 0:
            return None
        counted = self._bytes - self._frames[-1][1]  # the last frame's time lies outside the span
        return counted * 8 * VIDEO_CLOCK_HZ / span

    def _span(self) -> int:
        return self._frames[-1][0] - self._frames[0][0] if self._frames else 0
