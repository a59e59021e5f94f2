"""The source view: the publisher's own access units, in step with the upscaled picture."""

from __future__ import annotations

from collections import deque

from streamlift.frames import EncodedFrame, Frame, Rendition, StageTimes
from streamlift.routing.broadcast import Broadcast

__all__ = ["SourceView"]

KEEP_FRAMES = 256


class SourceView:
    """Keeps access units until the upscaled frame of the same pts goes out.

    All go out, in order, also those of frames that the lane dropped: a decoder misses each of
    them. When too many are kept (no upscaled frame comes), the oldest go out.
    """

    def __init__(self, broadcast: Broadcast) -> None:
        self.broadcast = broadcast
        self._kept: deque[EncodedFrame] = deque()

    def keep(self, frame: Frame) -> None:
        """Remember a frame's access unit, if it carries one."""
        if frame.coded is None:
            return
        self._kept.append(
            EncodedFrame(
                pts=frame.pts,
                size=frame.size,
                rendition=Rendition(frame.coded.codec, bitrate_bps=0, profile=""),
                keyframe=frame.coded.keyframe,
                data=frame.coded.data,
                arrived_s=frame.arrived_s,
                stages=StageTimes(decode_s=frame.decode_s),
            )
        )
        if len(self._kept) > KEEP_FRAMES:
            self.broadcast.put(self._kept.popleft())

    def release(self, pts: int) -> None:
        """The upscaled frame of this pts goes out now."""
        while self._kept and self._kept[0].pts <= pts:
            self.broadcast.put(self._kept.popleft())
