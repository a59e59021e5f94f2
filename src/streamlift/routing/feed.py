"""One lane of a stream: what it was given, what it still owes, what waits to be shown."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from streamlift.frames import EncodedFrame, Frame, Size
from streamlift.routing.pacing import Offsets
from streamlift.routing.ports import Lane
from streamlift.routing.watchdog import Watchdog

__all__ = ["HELD_FRAMES", "OWED_FRAMES", "Feed"]

OWED_FRAMES = 64
"""Bound of the frames kept for replay; a lane itself holds at most 32 waiting ones."""
HELD_FRAMES = 256
REPLAY_WINDOW = 4
"""Frames of a replay that the fallback has at a time: it upscales faster than it encodes."""
FALLBACK_SILENCE_S = 1.0


class Feed:
    """A lane from its opening to its end, and every frame given to it but not yet returned.

    Frames offered while the lane is being opened wait here, so that it starts at the frame that
    was asked of it. `held` are its frames while another lane is shown, the first a keyframe.
    """

    __slots__ = (
        "_unsent",
        "admission",
        "alive",
        "backend",
        "delay_s",
        "fallback",
        "finished",
        "held",
        "held_since_s",
        "lane",
        "offsets",
        "opened_s",
        "owed",
        "size",
        "slate",
        "task",
        "watchdog",
    )

    def __init__(
        self,
        backend: str,
        size: Size,
        opened_s: float,
        *,
        slate: bool = False,
        admission: bool = False,
        fallback: bool = False,
        delay_s: float = 0.0,
    ) -> None:
        self.backend = backend
        self.size = size
        self.opened_s = opened_s
        self.delay_s = delay_s  # before opening
        self.slate = slate
        self.admission = admission  # the publisher's first lane: without a slot it is refused
        self.fallback = fallback
        self.lane: Lane | None = None
        self.task: asyncio.Task[None] | None = None
        self.owed: deque[Frame] = deque()  # oldest first
        self._unsent: deque[Frame] = deque()  # the last of them, not yet with the lane
        self.held: deque[EncodedFrame] = deque()
        self.held_since_s = 0.0  # when the first of them came
        self.offsets = Offsets()
        # Nothing replaces the fallback but itself: it gets time for a moment of overload.
        self.watchdog = Watchdog(FALLBACK_SILENCE_S) if fallback else Watchdog()
        self.finished = False
        self.alive = True

    def offer(self, frame: Frame, now_s: float) -> bool:
        """Hand a frame to the lane, or keep it until the lane is open.

        False when too many are kept: then the oldest was given up, and no lane ever saw it.
        """
        self.owed.append(frame)
        self._unsent.append(frame)
        kept = True
        if len(self.owed) > OWED_FRAMES:
            dropped = self.owed.popleft()
            if self._unsent[0] is dropped:
                self._unsent.popleft()
                kept = False
        # Two for each new one: a replay ends even if the lane drops all of it without a word.
        self._hand_over(2, now_s)
        return kept

    def attach(self, lane: Lane, now_s: float) -> None:
        """The lane is open: hand over what waited."""
        self.lane = lane
        whole = self.finished or not self.fallback
        self._hand_over(len(self._unsent) if whole else REPLAY_WINDOW, now_s)
        if self.finished:
            lane.finish()

    def returned(self, pts: int, now_s: float) -> None:
        """The lane gave back this frame; earlier ones that it did not give back, it dropped."""
        while self.owed and self.owed[0].pts <= pts:
            self.owed.popleft()
        self.offsets.observe(pts, now_s)
        self.watchdog.answered(now_s)
        self._hand_over(REPLAY_WINDOW - len(self.owed) + len(self._unsent), now_s)

    def finish(self, now_s: float) -> None:
        """No more frames: the lane delivers what it owes, then its iteration ends."""
        if not self.finished:
            self.finished = True
            self._hand_over(len(self._unsent), now_s)
            if self.lane is not None:
                self.lane.finish()

    def retire(self) -> None:
        """Nothing more is wanted of this lane: its task closes it."""
        self.alive = False
        self.finished = True
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    def owes_between(self, after: int | None, before: int) -> bool:
        """Whether the lane will still deliver a frame with after < pts < before."""
        if not self.alive:
            return False
        return any(f.pts < before and (after is None or f.pts > after) for f in self.owed)

    def hold(self, encoded: EncodedFrame, leads: bool, now_s: float) -> None:
        """Keep a frame until this lane is shown; `leads`: it is of the default rendition."""
        if not self.held:
            self.held_since_s = now_s
        at = len(self.held)
        while leads and at > 0 and self.held[at - 1].pts >= encoded.pts:
            at -= 1  # other renditions of the same picture follow the leading one
        self.held.insert(at, encoded)
        if len(self.held) > HELD_FRAMES:
            self.held.popleft()

    def keyframe_after(
        self, shown: int | None, leads: Callable[[EncodedFrame], bool], now_s: float
    ) -> int | None:
        """The pts of the first held keyframe after `shown`; forgets all that is before it."""
        while self.held:
            first = self.held[0]
            if first.keyframe and leads(first) and (shown is None or first.pts > shown):
                return first.pts
            self.held.popleft()
            self.held_since_s = now_s
        return None

    def _hand_over(self, count: int, now_s: float) -> None:
        if self.lane is None:
            return
        for _ in range(min(count, len(self._unsent))):
            frame = self._unsent.popleft()
            if self.lane.offer(frame):
                self.watchdog.offered(now_s)
            else:
                self.owed.remove(frame)
