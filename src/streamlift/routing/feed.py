"""One lane of a stream and the frames it still owes."""

from __future__ import annotations

from collections import deque

from streamlift.frames import Frame, Size
from streamlift.routing.ports import Lane

__all__ = ["OWED_FRAMES", "Feed"]

OWED_FRAMES = 64
"""Bound of the frames kept for replay; a lane itself holds at most 32 waiting ones."""


class Feed:
    """A lane from its opening to its end, and every frame given to it but not yet returned.

    Frames offered while the lane is being opened wait here, so that it starts at the frame that
    was asked of it.
    """

    __slots__ = ("backend", "finished", "lane", "owed", "size")

    def __init__(self, backend: str, size: Size) -> None:
        self.backend = backend
        self.size = size
        self.lane: Lane | None = None
        self.owed: deque[Frame] = deque()  # oldest first
        self.finished = False

    def offer(self, frame: Frame) -> None:
        """Hand a frame to the lane, or keep it until the lane is open."""
        if self.lane is None or self.lane.offer(frame):
            self.owed.append(frame)
        if len(self.owed) > OWED_FRAMES:
            self.owed.popleft()

    def attach(self, lane: Lane) -> None:
        """The lane is open: hand over what waited."""
        self.lane = lane
        waiting, self.owed = self.owed, deque()
        for frame in waiting:
            self.offer(frame)
        if self.finished:
            lane.finish()

    def returned(self, pts: int) -> None:
        """The lane gave back this frame; earlier ones that it did not give back, it dropped."""
        while self.owed and self.owed[0].pts <= pts:
            self.owed.popleft()

    def finish(self) -> None:
        """No more frames: the lane delivers what it owes, then its iteration ends."""
        if not self.finished:
            self.finished = True
            if self.lane is not None:
                self.lane.finish()
