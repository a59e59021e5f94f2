"""Even playout at the publisher's own rate, of frames that a lane gives back in bursts.

Every frame has an *offset*: the time it was ready minus its pts. A lane that answers frame by
frame has nearly constant offsets, and its frames go out at once. A chunked one has offsets that
rise and fall; its frames go out at pts plus a high quantile of the recent offsets, where nearly
none comes too late. So the added delay is never more than the lane's own unevenness (and 0.8 s),
the cadence is the publisher's, and a drifting clock is followed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

from streamlift.clock import VIDEO_CLOCK_HZ

__all__ = ["Offsets", "Pace"]

RECENT_OFFSETS = 128
LOW, MIDDLE, HIGH = 0.05, 0.5, 0.97
SKEW = 1.2
"""How much further (and one frame time) the high offset may lie above the median than the low one
below it. Steps give evenly spread offsets; a long tail is an overload or a stall, for which no
viewer should wait."""
LONGEST_ADDED_S = 0.8
"""Bursts of 12 frames in and steps of 8 out need 0.72 s at 25 fps."""
RECENT_SPACINGS = 48
UNEVEN_ON, UNEVEN_OFF = 0.15, 0.08
"""Share of time in which viewers would see a picture stand for longer than 1.5 frame times."""
PROOF_SPACINGS = 32
"""A lane must be even for that long to count as even again; bursts may be 24 frames apart."""
LONGEST_PAUSE = VIDEO_CLOCK_HZ
"""Between frames further apart than a second no cadence is kept."""
SLOWEST, FASTEST = 1.25, 0.9
"""Bounds of frame spacing while the delay changes: 50 ms and 36 ms at 25 fps."""
CATCH_UP = 0.5
"""Least spacing where frames go out at once, or too late: a backlog runs off at double speed."""
LONGEST_CATCH_UP_S = 0.02
"""As at 25 frames a second, also where timestamps say 10: they may be wrong, and 25 come."""
LATE_STEPS = 0.5
"""More frame times than this behind the aim are too late."""


class Offsets:
    """The recent offsets of one lane, and whether they call for pacing."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []
        self._spacings: deque[tuple[float, float]] = deque()  # spacing, its excess; seconds
        self._time_s = 0.0
        self._excess_s = 0.0
        self._last: tuple[int, float] | None = None
        self._step_s = 0.0  # the last frame time
        self.count = 0
        self.uneven = False

    def observe(self, pts: int, ready_s: float) -> None:
        """A frame is ready; pts must rise."""
        self.count += 1
        self._add_offset(ready_s - pts / VIDEO_CLOCK_HZ)
        if self._last is not None and pts - self._last[0] < LONGEST_PAUSE:
            self._step_s = (pts - self._last[0]) / VIDEO_CLOCK_HZ
            self._add_spacing(ready_s - self._last[1], self._step_s)
        self._last = (pts, ready_s)

    @property
    def high(self) -> float | None:
        """The offset before which nearly all frames are ready; stalls do not count."""
        if not self._sorted:
            return None
        low, middle, high = (self._quantile(q) for q in (LOW, MIDDLE, HIGH))
        usual = middle + SKEW * (middle - low) + self._step_s
        return min(high, usual, low + LONGEST_ADDED_S)

    @property
    def middle(self) -> float | None:
        """The median offset."""
        return self._quantile(MIDDLE) if self._sorted else None

    @property
    def spread(self) -> float:
        """Seconds between the lowest and the high offset."""
        high = self.high
        return 0.0 if high is None else high - self._sorted[0]

    @property
    def aim(self) -> float | None:
        """The offset at which frames should go out; None: as soon as they are ready."""
        # Single stalls can make a lane uneven too, but with offsets that hardly differ.
        return self.high if self.uneven and self.spread > self._step_s else None

    def _quantile(self, q: float) -> float:
        return self._sorted[min(len(self._sorted) - 1, int(q * len(self._sorted)))]

    def _add_offset(self, offset: float) -> None:
        self._recent.append(offset)
        insort(self._sorted, offset)
        if len(self._recent) > RECENT_OFFSETS:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]

    def _add_spacing(self, spacing_s: float, due_s: float) -> None:
        excess_s = max(0.0, spacing_s - 1.5 * due_s)
        self._spacings.append((spacing_s, excess_s))
        self._time_s += spacing_s
        self._excess_s += excess_s
        if len(self._spacings) > RECENT_SPACINGS:
            old_s, old_excess_s = self._spacings.popleft()
            self._time_s -= old_s
            self._excess_s -= old_excess_s
        if self._excess_s > UNEVEN_ON * self._time_s:
            self.uneven = True
        elif self._excess_s < UNEVEN_OFF * self._time_s and len(self._spacings) >= PROOF_SPACINGS:
            self.uneven = False


class Pace:
    """Says when the next frame is due, from when the last one went out."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    def due_s(self, pts: int, aim: float | None) -> float:
        """When the frame should go out; a time in the past means now.

        Spacing is stretched or shortened only a little until frames go out at offset `aim`.
        """
        if self._last is None or pts - self._last[0] > LONGEST_PAUSE:
            return float("-inf")
        last_pts, last_s = self._last
        step_s = (pts - last_pts) / VIDEO_CLOCK_HZ
        if aim is None:
            return last_s + min(CATCH_UP * step_s, LONGEST_CATCH_UP_S)
        wanted_s = pts / VIDEO_CLOCK_HZ + aim
        late = last_s + step_s - wanted_s > LATE_STEPS * step_s
        hurried_s = min(CATCH_UP * step_s, LONGEST_CATCH_UP_S)
        least_s = last_s + (hurried_s if late else FASTEST * step_s)
        return min(max(wanted_s, least_s), last_s + SLOWEST * step_s)

    def went_out(self, pts: int, now_s: float) -> None:
        self._last = (pts, now_s)

    def jump(self) -> None:
        """The next frame goes out at once, whatever its pts."""
        self._last = None

    @property
    def offset(self) -> float | None:
        """The offset at which the last frame went out."""
        return None if self._last is None else self._last[1] - self._last[0] / VIDEO_CLOCK_HZ
