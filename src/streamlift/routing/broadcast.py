"""One rendition's frames for any number of viewers: a short ring and a cursor for each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from streamlift.clock import Clock
from streamlift.frames import EncodedFrame

__all__ = ["Broadcast", "Cursor"]

KEEP_S = 2.0
KEEP_FRAMES = 512
"""Second bound of the ring, for publishers faster than any camera."""
FRESH_S = 0.5
"""A viewer starts at a keyframe not older than this, and may lag no more."""
ASK_AGAIN_S = 1.0
"""Longer than the slowest lane takes to answer a keyframe request."""


@dataclass(frozen=True, slots=True)
class _Entry:
    put_s: float
    frame: EncodedFrame


class Broadcast:
    """The writer never waits: a viewer that is too slow jumps ahead, at its own cost only.

    `ask_keyframe` is called when a cursor needs a keyframe that is not there; merging requests is
    the callee's task. `on_viewers` is called when a cursor comes or goes, `on_skipped` with the
    number of frames that one has jumped over.
    """

    def __init__(
        self,
        clock: Clock,
        ask_keyframe: Callable[[], None],
        on_viewers: Callable[[], None] | None = None,
        on_skipped: Callable[[int], None] | None = None,
    ) -> None:
        self._clock = clock
        self._ask_keyframe = ask_keyframe
        self._on_viewers = on_viewers
        self._on_skipped = on_skipped
        self._ring: deque[_Entry] = deque()
        self._first = 0  # sequence number of the ring's oldest entry
        self._keyframe: int | None = None  # sequence number of the newest keyframe
        self._cursors: set[Cursor] = set()
        self._asked_s = 0.0
        self.closed = False

    @property
    def viewers(self) -> int:
        return len(self._cursors)

    def put(self, frame: EncodedFrame) -> None:
        """Append a frame and wake whoever waits."""
        now_s = self._clock.now_s()
        sequence = self._first + len(self._ring)
        self._ring.append(_Entry(now_s, frame))
        if frame.keyframe:
            self._keyframe = sequence
        while len(self._ring) > KEEP_FRAMES or now_s - self._ring[0].put_s > KEEP_S:
            self._ring.popleft()
            self._first += 1
        waiting = False
        for cursor in self._cursors:
            waiting |= not cursor._notice(sequence, frame.keyframe)
        if waiting and now_s - self._asked_s > ASK_AGAIN_S:
            self._ask()

    def cursor(self) -> Cursor:
        """A new viewer's place: at the newest keyframe if that is fresh, else at the next one."""
        cursor = Cursor(self)
        self._cursors.add(cursor)
        if self.closed:
            cursor.close()
        elif self._on_viewers is not None:
            self._on_viewers()
        return cursor

    def close(self) -> None:
        """End all cursors."""
        self.closed = True
        for cursor in tuple(self._cursors):
            cursor.close()

    def _end(self) -> int:
        return self._first + len(self._ring)

    def _entry(self, sequence: int) -> _Entry | None:
        """The entry if it is still kept and fresh."""
        if sequence < self._first:
            return None
        entry = self._ring[sequence - self._first]
        return entry if self._clock.now_s() - entry.put_s <= FRESH_S else None

    def _fresh_keyframe(self) -> int | None:
        if self._keyframe is None or self._entry(self._keyframe) is None:
            return None
        return self._keyframe

    def _ask(self) -> None:
        self._asked_s = self._clock.now_s()
        self._ask_keyframe()

    def _count_skipped(self, frames: int) -> None:
        if self._on_skipped is not None:
            self._on_skipped(frames)

    def _leave(self, cursor: Cursor) -> None:
        if cursor in self._cursors:
            self._cursors.remove(cursor)
            if self._on_viewers is not None and not self.closed:
                self._on_viewers()


class Cursor:
    """One viewer's place in a broadcast: an async iterator of EncodedFrame.

    It ends when it or the broadcast is closed. `skipped` counts frames jumped over because the
    viewer was more than half a second behind. Use it as a context manager, or call `close`.
    """

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self._wake = asyncio.Event()
        self._next = broadcast._fresh_keyframe()  # None: wait for a keyframe
        self._lost_from: int | None = None
        self.closed = False
        self.skipped = 0
        if self._next is None:
            broadcast._ask()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Cursor:
        return self

    async def __anext__(self) -> EncodedFrame:
        while not self.closed:
            frame = self.take()
            if frame is not None:
                return frame
            self._wake.clear()
            await self._wake.wait()
        raise StopAsyncIteration

    def take(self) -> EncodedFrame | None:
        """The next frame if it is there; jumps ahead when too far behind."""
        if self._next is None or self._next >= self._broadcast._end():
            return None
        entry = self._broadcast._entry(self._next)
        if entry is None:
            self._jump(self._next)
            return self.take()
        self._next += 1
        return entry.frame

    def request_keyframe(self) -> None:
        """The viewer lost a picture. Any number of requests, of all viewers, may be one keyframe;
        a closed cursor asks nobody."""
        if not self.closed:
            self._broadcast._ask()

    def close(self) -> None:
        """Leave; an iteration that waits ends."""
        if not self.closed:
            self.closed = True
            self._broadcast._leave(self)
            self._wake.set()

    def _jump(self, lost_from: int) -> None:
        self._lost_from = lost_from
        self._next = None
        keyframe = self._broadcast._fresh_keyframe()
        if keyframe is None:
            self._broadcast._ask()
        else:
            self._start(keyframe)

    def _notice(self, sequence: int, keyframe: bool) -> bool:
        """A frame was put; False if this cursor still needs a keyframe."""
        if self._next is None:
            if not keyframe:
                return False
            self._start(sequence)
        self._wake.set()
        return True

    def _start(self, keyframe: int) -> None:
        self._next = keyframe
        if self._lost_from is not None:
            skipped = keyframe - self._lost_from
            self._lost_from = None
            self.skipped += skipped
            self._broadcast._count_skipped(skipped)
