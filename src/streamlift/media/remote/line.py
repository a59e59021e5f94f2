"""One rising line of timestamps over all connections of a pull. Pure."""

from __future__ import annotations

from streamlift.clock import VIDEO_CLOCK_HZ

__all__ = ["Line"]

MAX_JUMP_S = 1.0


class Line:
    """Places pts of `clock_hz`; a jump of over a second is a new beginning."""

    def __init__(self, clock_hz: int = VIDEO_CLOCK_HZ) -> None:
        self.jumps = 0
        self._clock_hz = clock_hz
        self._offset: int | None = None
        self._last: int | None = None
        self._arrived_s = 0.0

    def restart(self) -> None:
        """The next one comes from another clock."""
        self._offset = None

    def place(self, pts: int, arrived_s: float) -> int:
        """Where the line has it; always greater than the one before."""
        if self._offset is None:
            self._offset = self._now(arrived_s) - pts
        elif self._last is not None:
            step_s = (pts + self._offset - self._last) / self._clock_hz
            if step_s <= 0 or step_s - (arrived_s - self._arrived_s) > MAX_JUMP_S:
                self.jumps += 1
                self._offset = self._now(arrived_s) - pts
        self._last, self._arrived_s = pts + self._offset, arrived_s
        return self._last

    def placed(self, pts: int) -> int:
        """Where the line has a pts from shortly before the last one."""
        return pts + (self._offset or 0)

    def _now(self, arrived_s: float) -> int:
        if self._last is None:
            return 0
        return self._last + max(1, round((arrived_s - self._arrived_s) * self._clock_hz))
