"""When frames came and how fast they should be played: the arithmetic of bursts. Pure.

Generators deliver in bursts (LongLive: 9 frames, then always 12). Scope plays at the rate a stage
reports and holds what is not yet due in a queue, so an even picture is a matter of the right rate.
"""

from __future__ import annotations

import math
from collections import deque

from streamlift.arrivals import FIRST_GUESS_FPS, Arrivals

__all__ = ["Backlog", "Playout"]

MIN_FPS, MAX_FPS = 1.0, 60.0

_PLAYER_OVERHEAD_S = 0.001
_KEEP_UP = 1.005
_STRETCH = 0.72
_SPARE_FRAMES = 4.0
_CATCH_UP_S = 4.0
_MOST_CATCH_UP = 0.15
_LOWEST_OVER_S = 2.0
_STRETCH_LIMIT_S = 10.0
_IDLE_S = 0.004
_FIRST_RUN_S = 6.0
_RUNS_TO_KNOW = 3
_RUNS_OVER_S = 30.0
_RUN_MARGIN = 1.5
_LEAST_PATIENCE_S = 1.0


class Playout:
    """Follows what Scope's player still holds, and says how fast it should play.

    The player waits a frame time after each frame and then a little more, so it is told a little
    more than the rate measured: a queue that runs empty waits some milliseconds for the next
    frame, one that fills up loses frames.
    """

    def __init__(self) -> None:
        self._arrivals = Arrivals()
        self._rate = FIRST_GUESS_FPS
        self._playing_fps = FIRST_GUESS_FPS
        self._held = 0.0
        self._held_at_s = 0.0
        self._lowest: deque[tuple[float, float]] = deque()
        self._stretching_since_s: float | None = None
        self._settled_s = -math.inf

    def arrived(self, now_s: float) -> None:
        """A frame came in."""
        self._arrivals.note(now_s)

    def deliver(self, frames: int, now_s: float, *, owed: int | None = None) -> float:
        """Hand over `frames`; returns the rate to play at from now on, in frames a second.

        `owed`: a model that holds that many frames back is about to take over; play slower until
        the player holds as many. Then the change is no gap.
        """
        self._play_until(now_s)
        self._lowest.append((now_s, self._held))
        while self._lowest[0][0] < now_s - _LOWEST_OVER_S:
            self._lowest.popleft()
        self._held += frames
        self._rate = self._arrivals.rate_fps or self._rate
        self._playing_fps = self._rate * (self._pace(now_s) if owed is None else _STRETCH)
        if owed is None:
            self._stretching_since_s = None
        elif self._stretching_since_s is None:
            self._stretching_since_s = now_s
        frame_s = 1.0 / (self._playing_fps * _KEEP_UP) - _PLAYER_OVERHEAD_S
        return min(max(1.0 / max(frame_s, 1.0 / MAX_FPS), MIN_FPS), MAX_FPS)

    def can_bridge(self, owed: int, now_s: float) -> bool:
        """Whether the player, told to play slower, now holds enough to wait for `owed` frames."""
        if self._stretching_since_s is None:
            return False
        stretched_s = now_s - self._stretching_since_s
        enough = stretched_s >= _LOWEST_OVER_S and self._spare() >= owed + _SPARE_FRAMES / 2
        return enough or stretched_s >= _STRETCH_LIMIT_S

    def taken_over(self, now_s: float) -> None:
        """Another model holds other numbers of frames back: what was held before says nothing."""
        self._lowest.clear()
        self._settled_s = now_s + _LOWEST_OVER_S

    def _pace(self, now_s: float) -> float:
        """Above 1 while the player holds more than it needs: that would be delay for ever."""
        if now_s < self._settled_s:
            return 1.0
        excess = max(0.0, self._spare() - _SPARE_FRAMES)
        return 1.0 + min(excess / (self._rate * _CATCH_UP_S), _MOST_CATCH_UP)

    def _spare(self) -> float:
        """The fewest frames held before a delivery of late: what a cycle of bursts leaves over."""
        return min((held for _, held in self._lowest), default=0.0)

    def _play_until(self, now_s: float) -> None:
        self._held = max(0.0, self._held - (now_s - self._held_at_s) * self._playing_fps)
        self._held_at_s = now_s


class Backlog:
    """Notices that the stage is slower than its source, which cannot be seen in Scope's queue.

    While frames wait there the next call follows at once. Bursts do that too, of any size, but
    there is a pause after each. So only time tells: a run of calls that goes on for much longer
    than those before it went on, which ended. Until one has ended, for `_FIRST_RUN_S`.
    """

    def __init__(self) -> None:
        self._unbroken = 0
        self._began_s = 0.0
        self._returned_s: float | None = None
        self._runs: deque[tuple[float, float, int]] = deque()  # end, length in time and in frames

    @property
    def largest_burst(self) -> int:
        """Frames of the longest run of late."""
        return max((frames for _, _, frames in self._runs), default=0)

    def called(self, frames: int, now_s: float) -> None:
        if self._returned_s is None or now_s - self._returned_s > _IDLE_S:
            if self._returned_s is not None:
                run = (self._returned_s, self._returned_s - self._began_s, self._unbroken)
                self._runs.append(run)
            while self._runs and self._runs[0][0] < now_s - _RUNS_OVER_S:
                self._runs.popleft()
            self._unbroken, self._began_s = 0, now_s
        self._unbroken += frames

    def returned(self, now_s: float) -> None:
        self._returned_s = now_s

    def must_skip(self, step: int, now_s: float) -> bool:
        """Whether this step is to be skipped; the one after a skipped step never is."""
        if self._unbroken <= 2 * step or now_s - self._began_s <= self._patience_s():
            return False
        self._unbroken = step  # so that at most every other step goes
        return True

    def _patience_s(self) -> float:
        if len(self._runs) < _RUNS_TO_KNOW:
            return _FIRST_RUN_S
        return _RUN_MARGIN * max(length for _, length, _ in self._runs) + _LEAST_PATIENCE_S
