"""One monotonic line of timestamps per stream, whatever its publishers' clocks do."""

from __future__ import annotations

from streamlift.clock import VIDEO_CLOCK_HZ

__all__ = ["Timeline"]

MAX_JUMP_S = 2.0
"""A pts that runs this much ahead of arrival is a jump, not a burst."""


class Timeline:
    """Maps a publisher's pts to the stream's, which starts at 0 and only rises (90 kHz).

    Spacing is kept as the publisher sent it. Where it cannot be (a new publisher, a step back, a
    jump), the line goes on by the time that passed between the two arrivals.
    """

    __slots__ = ("_arrived_s", "_offset", "last")

    def __init__(self) -> None:
        self._offset: int | None = None
        self._arrived_s = 0.0
        self.last: int | None = None

    def restart(self) -> None:
        """The next frame comes from another clock."""
        self._offset = None

    def place(self, pts: int, arrived_s: float) -> int:
        """The stream's pts of a frame; always greater than the one before."""
        if self._offset is None or self._jumps(pts + self._offset, arrived_s):
            self._offset = self._by_arrival(arrived_s) - pts
        self._arrived_s = arrived_s
        self.last = pts + self._offset
        return self.last

    def place_made(self, now_s: float) -> int:
        """The pts of a picture made here and now, such as a slate."""
        self.restart()
        self.last = self._by_arrival(now_s)
        self._arrived_s = now_s
        return self.last

    def _jumps(self, placed: int, arrived_s: float) -> bool:
        if self.last is None:
            return False
        step = placed - self.last
        passed_s = arrived_s - self._arrived_s
        return step <= 0 or step / VIDEO_CLOCK_HZ - max(passed_s, 0.0) > MAX_JUMP_S

    def _by_arrival(self, arrived_s: float) -> int:
        if self.last is None:
            return 0
        return self.last + max(1, round((arrived_s - self._arrived_s) * VIDEO_CLOCK_HZ))
