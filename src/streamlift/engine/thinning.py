"""Which frames a lane leaves out while it is given more than it can do: pure decisions.

No queue stands: a frame whose time has come waits for two frame times at most, or for as many as
a chunked model takes at once. Where that has been exceeded for 200 ms, frames are left out
evenly, as many as the measured excess asks for, until all would fit again.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Pulse", "Thinning"]

OVERDUE_FRAMES = 2
LONGEST_OVERDUE_S = 0.1
"""For each frame that may wait: at less than 10 frames a second two are a long time."""
LASTS_S = 0.2
KEEPS = 0.93
"""Of what the lane was measured to do: the rest lets its queue run empty."""
DRAIN_S = 0.5
"""Within this a queue that has formed is worked off."""
LEAST_KEPT, MOST_KEPT = 0.05, 0.99
RISE_PER_S = 0.02
"""While frames are left out and none is late, a few more are taken, for the load may be gone."""
FITS = 0.9
"""All frames are taken again where they would take less of the time than this."""
CATCHES_UP = 0.75
"""A queue in front of a lane with that much room is gone in a second: a stall, not an excess."""
MEASURED = 8
"""Frames, and two chunks of a chunked model."""
WARM = 3
"""First frames that tell nothing: a model's first run and an encoder that opens take longer."""


class Pulse:
    """How long one stage of a lane takes from frame to frame, whoever it has to share with.

    Counted is the time in which it could have worked on a frame: from the moment when that was
    there and the one before was done. So idle time is left out, and turns of other lanes are not.
    """

    __slots__ = ("_before_s", "_took_s", "_warm")

    def __init__(self, chunk: int = 1) -> None:
        self._warm = 0
        self._took_s: deque[float] = deque(maxlen=max(MEASURED, 2 * chunk))
        self._before_s = float("-inf")

    def note(self, there_s: float, done_s: float) -> None:
        """A frame that was there at `there_s` is done."""
        if self._warm < WARM:
            self._warm += 1
        else:
            self._took_s.append(max(0.0, done_s - max(there_s, self._before_s)))
        self._before_s = done_s

    def clear(self) -> None:
        """It works differently from now on."""
        self._took_s.clear()

    @property
    def frame_s(self) -> float | None:
        """Seconds a frame; None before it is known."""
        known = len(self._took_s) >= MEASURED // 2
        return sum(self._took_s) / len(self._took_s) if known else None


class Thinning:
    """Says of each frame whether it is left out. `chunk`: frames that the model takes at once."""

    def __init__(self, chunk: int = 1) -> None:
        self.kept = 1.0
        """Of the frames that come."""
        self._frames = max(OVERDUE_FRAMES, chunk if chunk > 1 else 0)
        self._credit = self._late_credit = 0.0
        self._overdue_since_s: float | None = None
        self._noted_s: float | None = None

    def admit(self, most: float = 1.0) -> bool:
        """Whether the next frame is taken; call it once for each. `most`: of them, at any rate."""
        kept = min(self.kept, most)
        if kept >= 1.0:
            return True
        self._credit += kept
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True

    def admit_late(self, overdue_s: float, fps: float) -> bool:
        """Whether a frame that was taken, and then overtaken by events, is still worth its time.

        Between two stages a queue forms where the second one stalls. What stands in it beyond
        what may wait is left out at the same rate as what comes.
        """
        if self.kept >= 1.0 or overdue_s <= self.allowed_s(fps):
            return True
        self._late_credit += self.kept
        if self._late_credit < 1.0:
            return False
        self._late_credit -= 1.0
        return True

    def restart(self) -> None:
        """The lane does less for a frame from now on: perhaps all fit."""
        self.kept = 1.0
        self._overdue_since_s = self._noted_s = None

    def allowed_s(self, fps: float) -> float:
        """How long a frame may wait once it is due."""
        return self._frames * min(1.0 / fps, LONGEST_OVERDUE_S)

    def note(self, now_s: float, overdue_s: float, *, fps: float, frame_s: float | None) -> None:
        """The oldest waiting frame is overdue by that; `frame_s`: what one takes, as measured."""
        since_s, self._noted_s = self._noted_s, now_s
        if overdue_s <= self.allowed_s(fps):
            self._overdue_since_s = None
        elif self._overdue_since_s is None:
            self._overdue_since_s = now_s
        if frame_s is None:
            return
        load = frame_s * fps
        if self.kept >= 1.0:
            lasts = self._overdue_since_s is not None and now_s - self._overdue_since_s >= LASTS_S
            if lasts and load > CATCHES_UP:
                self.kept = self._fitting(load, overdue_s, fps)
        elif overdue_s > self.allowed_s(fps) / 2:
            self.kept = self._fitting(load, overdue_s, fps)
        elif load < FITS:
            self.restart()
        else:
            passed_s = 0.0 if since_s is None else now_s - since_s
            most = 1.0 if load < 1.0 else MOST_KEPT  # with all of them it would begin anew
            self.kept = min(most, max(self.kept, KEEPS / load) + RISE_PER_S * passed_s)

    def _fitting(self, load: float, overdue_s: float, fps: float) -> float:
        queued = max(0.0, overdue_s - self.allowed_s(fps) / 2) / DRAIN_S
        return max(LEAST_KEPT, min(1.0, KEEPS / load) - queued)
