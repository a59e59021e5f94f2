"""The frames that wait for a lane's turn, and which of them are left out, by what rule."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from streamlift.clock import Clock
from streamlift.codec.motion import bridged
from streamlift.engine.capacity import ASSUMED_FPS, Need, Share
from streamlift.engine.thinning import Pulse, Thinning
from streamlift.frames import Frame

__all__ = ["CATCH_UP_S", "MAX_QUEUED", "ArrivalRate", "Inbox"]

MAX_QUEUED = 32
CATCH_UP_S = 3.0
"""How long a lane may take to work off what a failed one owed."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    frame: Frame
    since_s: float


class Inbox:
    """A bounded queue that does not stand; the lane holds the engine's lock around every call.

    Left out and counted are: what is more than the stream's share of a full backend,
    `over_share`; what is more than the lane can do, evenly, `overdue`; what has waited too long
    since it was due, or is one too many, `stale`. What follows such a frame knows the motion of
    both.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        share: Share,
        need: Need | None = None,
        fps: float | None,
        max_age_s: float,
        backlog_age_s: float | None = None,
        chunk: int = 1,
        most: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """`max_age_s`: how long a frame may have been due when its turn comes; `backlog_age_s`: the
        same for frames that a failed lane owed, until this one has caught up. `most`: which part
        of the frames this machine has time for."""
        self.dropped: Counter[str] = Counter()
        self.need = need or Need()
        self.rate = ArrivalRate(fps)
        self.thinning = Thinning(chunk)
        self.models = Pulse(chunk)
        self.encoders = Pulse(chunk)
        self._clock = clock
        self._share = share
        self._max_age_s = max_age_s
        self._backlog_age_s = backlog_age_s
        self._catch_up_until_s = clock.now_s() + (CATCH_UP_S if backlog_age_s else 0.0)
        self._backlog_to: int | None = None
        """pts of the last frame that was taken while it caught up."""
        self._most = most
        self._waiting: deque[_Waiting] = deque()
        self._taken: _Waiting | None = None
        self._left_out: Frame | None = None
        """The last one that came, if it was not let in or did not stay."""
        self._models_overdue_s = self._encoders_overdue_s = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting_since_s(self) -> float | None:
        """Arrival of the oldest; None if none waits."""
        return self._waiting[0].frame.arrived_s if self._waiting else None

    @property
    def due_s(self) -> float | None:
        """When the oldest was due; None if none waits."""
        return self._waiting[0].frame.late_after_s if self._waiting else None

    @property
    def fps(self) -> float:
        return self.rate.fps or ASSUMED_FPS

    def put(self, frame: Frame) -> bool:
        """Let a frame in; False where it is more than the stream's share."""
        if self.rate.arrived(frame.arrived_s):
            self._share.ask(self.need.pps(frame.size, self.rate.fps))
        if self._left_out is not None:
            frame = bridged(frame, self._left_out)
        if not self._share.admit():
            self._left_out = frame
            self.dropped["over_share"] += 1
            return False
        self._left_out = None
        self._waiting.append(_Waiting(frame, self._clock.now_s()))
        self._drop_stale()
        return True

    def take(self) -> Frame | None:
        """The frame whose turn it is, after those that are left out; None if none is left."""
        now_s = self._clock.now_s()
        self._drop_stale()
        if self._waiting:
            self._models_overdue_s = now_s - self._waiting[0].frame.late_after_s
            self._note_overdue()
        while self._waiting and not self.catching_up(now_s):
            if self.thinning.admit(self._most()):
                break
            self._leave_out("overdue")
        self._taken = self._waiting.popleft() if self._waiting else None
        if self._taken is None:
            return None
        if self.catching_up(now_s):
            self._backlog_to = self._taken.frame.pts
        return self._taken.frame

    def done(self) -> None:
        """The model has done what it does with the frame that was taken."""
        if self._taken is not None:
            self.models.note(self._taken.since_s, self._clock.now_s())

    def encoder_overdue(self, seconds: float) -> bool:
        """The picture whose turn it is at the encoder has waited that long in all queues.

        False where it is to be left out, which is counted as `overdue`.
        """
        self._encoders_overdue_s = seconds
        self._note_overdue()
        if self.catching_up(self._clock.now_s()) or self.thinning.admit_late(seconds, self.fps):
            return True
        self.dropped["overdue"] += 1
        return False

    def works_differently(self) -> None:
        """The lane spends less, or more, on a frame from now on."""
        self.thinning.restart()
        self.models.clear()
        self.encoders.clear()

    def catching_up(self, now_s: float) -> bool:
        """Whether it still works off what a failed lane owed."""
        return now_s < self._catch_up_until_s

    def age_limit_s(self, pts: int) -> float:
        """How long this frame may wait in all queues of the lane together, once it is due."""
        if self._backlog_age_s is None or self._backlog_to is None or pts > self._backlog_to:
            return self._max_age_s
        return max(self._backlog_age_s, self._max_age_s)

    def clear(self) -> None:
        self._waiting.clear()

    def _drop_stale(self) -> None:
        """Oldest first: late is lost."""
        now_s = self._clock.now_s()
        if self._waiting and self.catching_up(now_s):
            late_s = now_s - self._waiting[0].frame.late_after_s
            if late_s < self.thinning.allowed_s(self.fps):
                self._catch_up_until_s = now_s  # it has
        backlog_s = self._backlog_age_s if self.catching_up(now_s) else None
        oldest_s = now_s - (backlog_s or self._max_age_s)
        while self._waiting and (
            len(self._waiting) > MAX_QUEUED or self._waiting[0].frame.late_after_s < oldest_s
        ):
            self._leave_out("stale")

    def _note_overdue(self) -> None:
        now_s = self._clock.now_s()
        if self.catching_up(now_s):
            return
        known = [s for s in (self.models.frame_s, self.encoders.frame_s) if s is not None]
        overdue_s = max(self._models_overdue_s, self._encoders_overdue_s)
        self.thinning.note(now_s, overdue_s, fps=self.fps, frame_s=max(known, default=None))

    def _leave_out(self, reason: str) -> None:
        left_out = self._waiting.popleft().frame
        self.dropped[reason] += 1
        if self._waiting:
            first = self._waiting[0]
            self._waiting[0] = _Waiting(bridged(first.frame, left_out), first.since_s)
        else:
            self._left_out = left_out


class ArrivalRate:
    """Frames a second by arrival, over the last second or more; None until there was one."""

    __slots__ = ("_arrivals_s", "_next_s", "fps")

    WINDOW_S = 1.0
    EVERY_S = 0.25

    def __init__(self, fps: float | None) -> None:
        self.fps = fps
        self._arrivals_s: deque[float] = deque()
        self._next_s = float("-inf")

    def forget(self) -> None:
        """A pause begins: it is no part of the rate."""
        self._arrivals_s.clear()

    def arrived(self, arrived_s: float) -> bool:
        """Whether `fps` is worth another look, as with the first frame after a pause."""
        arrivals_s = self._arrivals_s
        if not arrivals_s:
            arrivals_s.append(arrived_s)
            return True
        arrivals_s.append(arrived_s)
        while len(arrivals_s) > 2 and arrived_s - arrivals_s[1] >= self.WINDOW_S:
            arrivals_s.popleft()
        span_s = arrived_s - arrivals_s[0]
        if span_s < self.WINDOW_S or arrived_s < self._next_s:
            return False
        self._next_s = arrived_s + self.EVERY_S
        self.fps = (len(arrivals_s) - 1) / span_s
        return True
