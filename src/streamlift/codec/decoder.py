"""The decode thread of a publisher: coded pictures in, I420 frames out."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import av
import numpy as np
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.plane import VideoPlane

from streamlift.clock import Clock
from streamlift.codec import nal_types
from streamlift.codec.motion import motion_of
from streamlift.frames import Codec, CodedVideo, Colour, Frame, Plane, Planes, Size

__all__ = [
    "MOST_BEHIND_S",
    "TOO_SLOW",
    "CodedPicture",
    "DecodeThread",
    "colour_of",
    "picture_of",
    "size_problem",
]

logger = logging.getLogger(__name__)

MIN_SIDE = 64
_NAMES = {Codec.H264: "h264", Codec.VP8: "vp8"}
_MATRICES = {1: "bt709"}
_FULL_RANGE = 2
_NAL_IDR, _NAL_SPS = 5, 7
_DEPTH = 256
MOST_BEHIND_S = 1.0
"""Of a live stream: twice what a decoded frame may wait for its model."""
TOO_SLOW = "the decoder does not keep up"
_AWAITED = 64
"""Access units whose pictures are looked for; H.264 holds back at most 16."""


@dataclass(frozen=True, slots=True, eq=False)
class CodedPicture:
    """One access unit with its time."""

    pts: int
    coded: CodedVideo
    arrived_s: float


class DecodeThread:
    """Decodes everything it is given, in order: a predicted picture is never skipped before it.

    A picture carries its own access unit, also where pictures come in another order than units;
    it carries none where that cannot be told. Units are numbered in the order of `offer`, those
    that are refused included.

    With `most_behind_s`, nothing stands before it: once the access unit that it works on came
    longer ago than that, all that waits is refused as `decode_busy`, and so is what comes, until
    it is through. What comes next must be a keyframe.

    `deliver(frame)` and `refuse(reason, detail)` are called on this thread, and `done()` when all
    that was queued before `stop` is decoded; `refuse` of what is given up also where `offer` is.
    """

    def __init__(
        self,
        name: str,
        *,
        max_side: int,
        clock: Clock,
        deliver: Callable[[Frame], None],
        refuse: Callable[[str, str], None],
        done: Callable[[], None],
        most_behind_s: float | None = None,
    ) -> None:
        self._max_side = max_side
        self._most_behind_s = most_behind_s
        self._works_on_s: float | None = None
        """When the access unit arrived that is being decoded; None between two."""
        self._clock = clock
        self._deliver = deliver
        self._refuse = refuse
        self._done = done
        self._coded: queue.Queue[CodedPicture | None] = queue.Queue(maxsize=_DEPTH)
        self._number = 0
        self._context: VideoCodecContext | None = None
        self._awaited: dict[int, CodedPicture | None] = {}
        """Units given to the decoder, by pts; None where two had the same."""
        self._codec: Codec | None = None
        self._held = False
        """Whether the decoder has taken an access unit and given neither picture nor error."""
        self._may_renew = True
        self._before: int | None = None
        """pts of the picture decoded last, whether it was delivered or not."""
        self._thread = threading.Thread(target=self._run, name=f"decode-{name}", daemon=True)
        self._thread.start()

    def offer(self, picture: CodedPicture) -> bool:
        """Queue a picture; False when too much is waiting already."""
        since_s = self._works_on_s
        if (
            self._most_behind_s is not None
            and since_s is not None
            and self._clock.now_s() - since_s > self._most_behind_s
        ):
            self._give_up_waiting()
            return False
        numbered = replace(picture, coded=replace(picture.coded, number=self._number))
        self._number += 1
        try:
            self._coded.put_nowait(numbered)
        except queue.Full:
            return False
        return True

    def stop(self) -> None:
        """End after what is queued; never waits."""
        while True:
            try:
                self._coded.put_nowait(None)
            except queue.Full:
                self._coded.get_nowait()
                continue
            return

    def _give_up_waiting(self) -> None:
        """Predicted pictures cannot be left out one by one: all go, to the next keyframe."""
        with suppress(queue.Empty):
            while self._coded.get_nowait() is not None:
                self._refuse("decode_busy", TOO_SLOW)

    def _run(self) -> None:
        while (picture := self._coded.get()) is not None:
            self._works_on_s = picture.arrived_s
            try:
                self._decode(picture)
            except av.FFmpegError as error:
                # The decoder keeps its state: a new one would fail until the next keyframe.
                self._may_renew = True
                self._refuse("decode_error", str(error))
            except Exception as error:  # a codec library may raise anything; this picture is lost
                logger.exception("decoding failed")
                self._refuse("decode_error", str(error))
            self._works_on_s = None
        self._done()

    def _decode(self, picture: CodedPicture) -> None:
        if self._context is None or picture.coded.codec is not self._codec:
            self._codec = picture.coded.codec
            self._context = _open_decoder(self._codec, self._max_side)
            self._awaited.clear()
            self._held = False
            self._before = None
        if not picture.coded.data:
            # To FFmpeg an empty packet means the end: it would decode nothing ever after.
            self._refuse("decode_error", "empty picture")
            return
        if self._held and self._may_renew and _begins_anew(picture.coded):
            self._context = self._renewed(self._context, picture)
        self._await_picture_of(picture)
        packet = av.Packet(picture.coded.data)
        packet.pts = picture.pts
        pictures = self._context.decode(packet)
        self._held = self._held or not pictures
        for decoded in pictures:
            self._give(decoded, picture)

    def _give(self, decoded: av.VideoFrame, pushed: CodedPicture) -> None:
        pts = pushed.pts if decoded.pts is None else decoded.pts
        follows, self._before = self._before, pts
        assert self._context is not None
        if self._context.has_b_frames:
            follows = None  # its vectors lead to pictures that were not shown just before
        if decoded.is_corrupt:
            self._may_renew = True
            self._refuse("decode_error", "damaged picture")
            return
        size = Size(decoded.width, decoded.height)
        if problem := size_problem(size, self._max_side):
            self._refuse("unsupported_size", problem)
            return
        own = None if decoded.pts is None else self._awaited.pop(decoded.pts, None)
        arrived_s = pushed.arrived_s if own is None else own.arrived_s
        yuv = decoded
        if decoded.format.name not in ("yuv420p", "yuvj420p"):
            yuv = decoded.reformat(format="yuv420p")
        self._deliver(
            Frame(
                pts=pts,
                size=size,
                planes=picture_of(yuv),
                colour=colour_of(decoded),
                arrived_s=arrived_s,
                coded=None if own is None else own.coded,
                decode_s=self._clock.now_s() - arrived_s,
                motion=motion_of(decoded, follows),
            )
        )

    def _await_picture_of(self, unit: CodedPicture) -> None:
        self._awaited[unit.pts] = None if unit.pts in self._awaited else unit
        if len(self._awaited) > _AWAITED:
            del self._awaited[next(iter(self._awaited))]  # no picture came of it

    def _renewed(self, context: VideoCodecContext, keyframe: CodedPicture) -> VideoCodecContext:
        """A new decoder in place of one that holds pictures back.

        When a keyframe is lost but its parameter sets are not, FFmpeg takes the order of what
        follows for reordering, and from then on every picture comes one later; a flush does not
        undo that. Once only until the next damage: a stream may be reordered in truth. So what
        the old one still holds is given, unless it is damaged.
        """
        with suppress(av.FFmpegError):
            for held in context.decode(None):
                self._give(held, keyframe)
        self._held = self._may_renew = False
        self._awaited.clear()
        assert self._codec is not None
        return _open_decoder(self._codec, self._max_side)


def picture_of(frame: av.VideoFrame) -> Planes:
    """The planes of a yuv420p frame as views; they keep the frame's memory alive."""
    return Planes(*(_view(plane) for plane in frame.planes))


def _view(plane: VideoPlane) -> Plane:
    rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


def _begins_anew(coded: CodedVideo) -> bool:
    """Whether a decoder that knows nothing can decode this: a keyframe with its parameter sets."""
    if coded.codec is Codec.H264:
        return {_NAL_IDR, _NAL_SPS} <= set(nal_types(coded.data))
    return coded.keyframe


def _open_decoder(codec: Codec, max_side: int) -> VideoCodecContext:
    context = av.CodecContext.create(_NAMES[codec], "r")
    assert isinstance(context, VideoCodecContext)
    context.thread_count = 1  # more would hold frames back
    context.flags |= Flags.low_delay
    # Checked by FFmpeg before it allocates: a forged 16k x 16k header costs nothing.
    # The vectors cost nothing: the decoder has them, and their motion search is the publisher's.
    context.options = {
        "max_pixels": str((max_side + 16) * (max_side + 16)),
        "flags2": "+export_mvs",
    }
    return context


def size_problem(size: Size, max_side: int) -> str | None:
    """What is wrong with a picture size, in words; None if it is taken."""
    sides = (size.width, size.height)
    if min(sides) < MIN_SIDE or max(sides) > max_side or any(side % 2 for side in sides):
        return f"found {size}, expected {MIN_SIDE}x{MIN_SIDE} to {max_side}x{max_side}, even"
    return None


def colour_of(frame: av.VideoFrame) -> Colour:
    """The colour tags of a decoded frame."""
    full = int(frame.color_range) == _FULL_RANGE or frame.format.name == "yuvj420p"
    return Colour(_MATRICES.get(int(frame.colorspace), "bt601"), full)
