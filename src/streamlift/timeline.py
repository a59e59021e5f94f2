"""One monotonic line of timestamps per stream, whatever its publishers' clocks do."""

from __future__ import annotations

from collections import deque

from streamlift.clock import VIDEO_CLOCK_HZ

__all__ = ["ClockRate", "PacingLine", "Timeline"]

MAX_JUMP_S = 2.0
"""A pts that runs this much ahead of arrival is a jump, not a burst."""

LINE_S = 1.5
"""The pacing line remembers arrivals of that long: two bursts of a publisher, of 12 frames at 16 a
second too."""
LONGEST_BURST_S = 1.0

WINDOW_S = 1.0
REMEMBERED = 12
"""Windows."""
GAIN_S = 0.1
"""So much earlier than ever before is a whole window where a clock gains."""
RIGHT = 0.95
"""A clock that gains less than a twentieth is left alone."""


class Timeline:
    """Maps a publisher's pts to the stream's, which starts at 0 and only rises (90 kHz).

    Spacing is kept as the publisher sent it. Where it cannot be (a new publisher, a step back, a
    jump), the line goes on by the time that passed between the two arrivals; where timestamps
    run faster than pictures come, spacing is shrunk to what comes.
    """

    __slots__ = ("_arrived_s", "_before", "_line", "_rate", "_raw", "due_s", "last")

    def __init__(self) -> None:
        self._raw: int | None = None
        self._before: tuple[int, int] | None = None
        """Of the frame before the last: the publisher's pts and the stream's."""
        self._arrived_s = 0.0
        self._rate = ClockRate()
        self._line = PacingLine()
        self.last: int | None = None
        self.due_s = 0.0
        """When the frame placed last is due: its place on the publisher's pacing line."""

    def restart(self) -> None:
        """The next frame comes from another clock."""
        self._raw = None

    def place(self, pts: int, arrived_s: float) -> int:
        """The stream's pts of a frame; always greater than the one before."""
        if self._raw is None or self.last is None or self._jumps(pts - self._raw, arrived_s):
            placed = self._by_arrival(arrived_s)
            self._before = None
            self._rate = ClockRate()
            self._line = PacingLine()
        else:
            self._before = self._raw, self.last
            placed = self.last + max(1, round((pts - self._raw) * self._rate.factor))
        self._rate.note(pts, placed, arrived_s)
        self.due_s = self._line.due_s(placed, arrived_s)
        self._raw, self._arrived_s, self.last = pts, arrived_s, placed
        return placed

    def placed(self, pts: int) -> int:
        """Where the stream's line has a publisher's pts from shortly before the last frame."""
        if self._before is not None and self._before[0] == pts:
            return self._before[1]
        if self._raw is None or self.last is None:
            return pts
        return self.last + pts - self._raw

    def place_made(self, now_s: float) -> int:
        """The pts of a picture made here and now, such as a slate."""
        self.restart()
        self.last = self._by_arrival(now_s)
        self._arrived_s = now_s
        return self.last

    def _jumps(self, step: int, arrived_s: float) -> bool:
        passed_s = arrived_s - self._arrived_s
        ahead_s = step * self._rate.factor / VIDEO_CLOCK_HZ - max(passed_s, 0.0)
        return step <= 0 or ahead_s > MAX_JUMP_S

    def _by_arrival(self, arrived_s: float) -> int:
        if self.last is None:
            return 0
        return self.last + max(1, round((arrived_s - self._arrived_s) * VIDEO_CLOCK_HZ))


class PacingLine:
    """When frames are due: at pts plus the highest recent arrival offset.

    So the first frame of a burst is due when it arrives, and the last as much later as the burst
    is long: to work them off at the publisher's own rate is no delay.
    """

    __slots__ = ("_highest",)

    def __init__(self) -> None:
        self._highest: deque[tuple[float, float]] = deque()
        """Arrivals and offsets, these falling: each is the highest of what came after it."""

    def due_s(self, pts: int, arrived_s: float) -> float:
        """When a frame that arrived then is due: never before, nor over a second after it."""
        offset = arrived_s - pts / VIDEO_CLOCK_HZ
        while self._highest and self._highest[-1][1] <= offset:
            self._highest.pop()
        self._highest.append((arrived_s, offset))
        while self._highest[0][0] < arrived_s - LINE_S:
            self._highest.popleft()
        return min(pts / VIDEO_CLOCK_HZ + self._highest[0][1], arrived_s + LONGEST_BURST_S)


class ClockRate:
    """How much of a publisher's time passes between its timestamps: 1, or less where they gain.

    A generator faster than its nominal rate writes 10 frames a second and sends 25. Bursts, stalls
    and what they are caught up with never look like that: all frames of a second come earlier, by
    their pts, than any one of the ten seconds before.
    """

    __slots__ = ("_windows", "factor")

    def __init__(self) -> None:
        self.factor = 1.0
        self._windows: deque[_Window] = deque(maxlen=REMEMBERED)

    def note(self, raw: int, placed: int, arrived_s: float) -> None:
        """A frame with the publisher's pts `raw` was placed at `placed`."""
        offset = arrived_s - placed / VIDEO_CLOCK_HZ
        if self._windows and arrived_s - self._windows[-1].began_s < WINDOW_S:
            self._windows[-1].add(offset)
            return
        self._judge()
        self._windows.append(_Window(raw, arrived_s, offset))

    def _judge(self) -> None:
        windows = self._windows
        if len(windows) < 3:
            return
        last, first = windows[-1], windows[-3]
        before = [windows[n] for n in range(len(windows) - 2)]
        gains = last.high < min(window.low for window in before) - GAIN_S
        loses = self.factor < 1.0 and last.low > first.high + GAIN_S
        # From first frame to first frame: the first of a burst each, where there are bursts.
        told_s = (last.raw - first.raw) / VIDEO_CLOCK_HZ
        if (gains or loses) and told_s > 0:
            factor = (last.began_s - first.began_s) / told_s
            self.factor = factor if 0 < factor < RIGHT else 1.0
            windows.clear()


class _Window:
    """A second of frames: the first one's pts and arrival, and the range of all offsets."""

    __slots__ = ("began_s", "high", "low", "raw")

    def __init__(self, raw: int, arrived_s: float, offset: float) -> None:
        self.raw = raw
        self.began_s = arrived_s
        self.low = self.high = offset

    def add(self, offset: float) -> None:
        self.low, self.high = min(self.low, offset), max(self.high, offset)
