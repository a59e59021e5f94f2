"""The frames of the shown lane until they are due, all renditions of a picture together."""

from __future__ import annotations

from collections import deque

from streamlift.routing.open_lane import Delivered
from streamlift.routing.pacing import Pace

__all__ = ["Playout"]

PENDING_FRAMES = 256


class Playout:
    """A queue between the shown lane and the viewers; empty where no pacing is needed.

    Frames are never dropped here: a viewer's decoder needs each of them. The caller brings the
    time, and `aim`: the offset to pace to, None to put frames out at once.
    """

    def __init__(self) -> None:
        self._pending: deque[Delivered] = deque()  # default rendition
        self._followers: deque[Delivered] = deque()  # other renditions
        self.pace = Pace()
        self.last_pts: int | None = None
        self.last_s: float | None = None

    def put(self, one: Delivered) -> None:
        """A frame of the shown lane is ready."""
        (self._pending if one.leads else self._followers).append(one)

    def take(self, now_s: float, aim: float | None) -> list[Delivered]:
        """The frames to put out now: one picture in all its renditions, or what came late for a
        picture that is out; nothing if nothing is due."""
        late = self._followers_up_to(self.last_pts)
        if late:
            return late
        if not self._pending or self.wait_s(now_s, aim):
            return []
        return self._next(now_s)

    def take_all(self, now_s: float) -> list[Delivered]:
        """Everything, due or not; for the end of a stream."""
        taken = self._followers_up_to(self.last_pts)
        while self._pending:
            taken += self._next(now_s)
        return taken

    def wait_s(self, now_s: float, aim: float | None) -> float | None:
        """Seconds until the next picture is due, 0 if one is; None while there is none."""
        if not self._pending:
            return None
        if len(self._pending) > PENDING_FRAMES:
            return 0.0
        return max(0.0, self.pace.due_s(self._pending[0].pts, aim) - now_s)

    def pending_before(self, pts: int) -> bool:
        return bool(self._pending) and self._pending[0].pts < pts

    def forget(self) -> list[int]:
        """Drop what is pending, because another lane is shown from now on; returns the pts."""
        dropped = [one.pts for one in self._pending]
        self._pending.clear()
        self._followers.clear()
        return dropped

    def _next(self, now_s: float) -> list[Delivered]:
        first = self._pending.popleft()
        self.pace.went_out(first.pts, now_s)
        self.last_pts, self.last_s = first.pts, now_s
        return [first, *self._followers_up_to(first.pts)]

    def _followers_up_to(self, pts: int | None) -> list[Delivered]:
        taken = []
        while self._followers and (
            (pts is not None and self._followers[0].pts <= pts)
            or len(self._followers) > PENDING_FRAMES
        ):
            taken.append(self._followers.popleft())
        return taken
