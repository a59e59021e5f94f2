"""The source view: the publisher's own access units, in step with the upscaled picture."""

from __future__ import annotations

from streamlift.frames import EncodedFrame, Frame, Rendition, StageTimes
from streamlift.routing.broadcast import Broadcast

__all__ = ["SourceView"]

KEEP_UNITS = 256
REORDERED_UNITS = 4
"""How many pictures may be shown before one that is decoded before them; x264 needs two."""


class SourceView:
    """Keeps access units until the upscaled frame of the same pts goes out.

    All go out, in the order in which they are decoded, also those of frames that the lane dropped:
    a decoder misses each of them. Where pictures are shown in another order (B-frames), a unit
    waits for those before it, whose frames come later. When too many are kept (no upscaled frame
    comes), the oldest go out.
    """

    def __init__(self, broadcast: Broadcast) -> None:
        self.broadcast = broadcast
        self._kept: dict[int, EncodedFrame] = {}  # by number, in the order of their frames
        self._next: int | None = None  # the number to go out
        self._due = -1  # pts up to which upscaled frames went out
        self._reorders = True  # until a unit was waited for in vain

    def restart(self) -> None:
        """Another publisher comes, who counts anew: what is kept of the last one goes out."""
        for number in sorted(self._kept):
            self.broadcast.put(self._kept[number])
        self._kept.clear()
        self._next, self._reorders = None, True

    def keep(self, frame: Frame) -> None:
        """Remember a frame's access unit, if it carries one."""
        coded = frame.coded
        if coded is None:
            return
        if self._next is None:
            self._next = coded.number
        elif coded.number < self._next and coded.keyframe:
            self.restart()  # a source that connected again counts anew
            self._next = coded.number
        elif coded.number < self._next:
            self._reorders = True
            return  # the units after it are out; no decoder could use it any more
        self._kept[coded.number] = EncodedFrame(
            pts=frame.pts,
            size=frame.size,
            rendition=Rendition(coded.codec, bitrate_bps=0, profile=""),
            keyframe=coded.keyframe,
            data=coded.data,
            arrived_s=frame.arrived_s,
            stages=StageTimes(decode_s=frame.decode_s),
        )
        if len(self._kept) > KEEP_UNITS:
            self._put(min(self._kept))

    def release(self, pts: int) -> None:
        """The upscaled frame of this pts goes out now."""
        self._due = max(self._due, pts)
        while waiting := [n for n, unit in self._kept.items() if unit.pts <= self._due]:
            first = min(self._kept)
            if first != self._next:  # some before it are not here: not yet, or never
                if self._reorders and len(waiting) < REORDERED_UNITS:
                    return
                self._reorders = False
            self._put(first)

    def _put(self, number: int) -> None:
        self.broadcast.put(self._kept.pop(number))
        self._next = number + 1
