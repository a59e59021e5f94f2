"""Puts the shown lane's frames out when they are due, all renditions of a picture together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from streamlift.clock import Clock
from streamlift.frames import EncodedFrame
from streamlift.routing.feed import Feed
from streamlift.routing.pacing import Pace

__all__ = ["Playout"]

PENDING_FRAMES = 256


class Playout:
    """A queue between the shown lane and the viewers; empty where no pacing is needed.

    `aim` tells the offset to pace to (None: at once), `show` puts a frame out, `went_out` is told
    after each picture of the default rendition. Frames are never dropped here: a viewer's decoder
    needs each of them.
    """

    def __init__(
        self,
        clock: Clock,
        aim: Callable[[], float | None],
        show: Callable[[EncodedFrame, Feed], None],
        went_out: Callable[[Feed, float], None],
    ) -> None:
        self._clock = clock
        self._aim = aim
        self._show = show
        self._went_out = went_out
        self._pending: deque[tuple[EncodedFrame, Feed]] = deque()  # default rendition
        self._followers: deque[tuple[EncodedFrame, Feed]] = deque()  # other renditions
        self._wake = asyncio.Event()
        self._releasing = False
        self.pace = Pace()
        self.last_pts: int | None = None
        self.last_s: float | None = None

    async def run(self) -> None:
        """Put out what is pending, as it becomes due; never ends."""
        while True:
            wait_s = self.release()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            self._wake.clear()

    def put(self, encoded: EncodedFrame, feed: Feed, *, leads: bool) -> None:
        """A frame of the shown lane is ready; it goes out now if it is due."""
        if leads:
            self._pending.append((encoded, feed))
            self.release()
            if self._pending:
                self._wake.set()
        elif self.last_pts is not None and encoded.pts <= self.last_pts:
            self._show(encoded, feed)
        else:
            self._followers.append((encoded, feed))
            if len(self._followers) > PENDING_FRAMES:
                self._show(*self._followers.popleft())

    def release(self) -> float | None:
        """Put out all that is due; returns the seconds until the next one, if any."""
        if self._releasing:
            return None  # called from `went_out`: the outer loop goes on
        self._releasing = True
        try:
            while self._pending:
                encoded, feed = self._pending[0]
                now_s = self._clock.now_s()
                wait_s = self.pace.due_s(encoded.pts, self._aim()) - now_s
                if wait_s > 0 and len(self._pending) <= PENDING_FRAMES:
                    return wait_s
                self._pending.popleft()
                self._put_out(encoded, feed, now_s)
            return None
        finally:
            self._releasing = False

    def flush(self) -> None:
        """Put out everything now; for the end of a stream."""
        while self._pending:
            self._put_out(*self._pending.popleft(), self._clock.now_s())

    def pending_before(self, pts: int) -> bool:
        return bool(self._pending) and self._pending[0][0].pts < pts

    def forget(self) -> list[int]:
        """Drop what is pending, because another lane is shown from now on; returns the pts."""
        dropped = [encoded.pts for encoded, _ in self._pending]
        self._pending.clear()
        self._followers.clear()
        return dropped

    def _put_out(self, encoded: EncodedFrame, feed: Feed, now_s: float) -> None:
        self.pace.went_out(encoded.pts, now_s)
        self.last_pts, self.last_s = encoded.pts, now_s
        self._show(encoded, feed)
        while self._followers and self._followers[0][0].pts <= encoded.pts:
            self._show(*self._followers.popleft())
        self._went_out(feed, now_s)
