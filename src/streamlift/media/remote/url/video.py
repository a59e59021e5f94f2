"""Packets of any codec to pictures, each with its own access unit where viewers could take that."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from streamlift.codec import is_keyframe, nal_types, parameter_sets
from streamlift.codec.decoder import colour_of, picture_of, size_problem
from streamlift.codec.motion import motion_of
from streamlift.frames import Codec, CodedVideo, Colour, Motion, Planes, Size
from streamlift.media.remote.url.ending import Refused

__all__ = ["CODECS", "Decoded", "VideoDecoder"]

CODECS = (
    *("h264", "hevc", "vp8", "vp9", "libdav1d", "av1"),
    *("mpeg1video", "mpeg2video", "mpeg4", "mjpeg"),
)
"""FFmpeg's names of the decoders that are used, of the many that it has."""
_RELAYED = {"h264": Codec.H264, "vp8": Codec.VP8}
_AS_IT_IS = ("yuv420p", "yuvj420p")
_AWAITED = 64
_SPS = 7


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A picture and when it is shown, on the media's own clock."""

    time_s: float
    raw_pts: int | None
    planes: Planes
    colour: Colour
    decode_s: float
    coded: CodedVideo | None
    motion: Motion | None


class VideoDecoder:
    """Decodes one stream from its beginning; `first` is the number of its first access unit."""

    def __init__(self, stream: VideoStream, *, max_side: int, live: bool, first: int = 0) -> None:
        """Raises Refused for a codec or a size that is not taken; nothing is decoded then."""
        context = stream.codec_context
        if context.codec.name not in CODECS:
            raise Refused(
                f"found video in {context.codec.name}; expected one of {', '.join(CODECS)}",
                expected=list(CODECS),
            )
        size = Size(context.width, context.height)
        if problem := size_problem(size, max_side):
            raise Refused(f"picture size: {problem} (ingest.max_size)", found=str(size))
        self.received = first
        self.decoded = 0
        self.dropped: Counter[str] = Counter()
        self._stream, self._context = stream, context
        self._max_side = max_side
        self._codec = _RELAYED.get(context.codec.name)
        self._filter = _annex_b(stream) if self._codec is Codec.H264 else None
        self._sets = parameter_sets(context.extradata or b"")
        self._awaited: dict[int, CodedVideo] = {}
        self._begun = False
        """Whether a keyframe was relayed: before it nobody could decode what follows."""
        self._before: int | None = None
        self._rate = float(stream.average_rate or 0) or 25.0
        self._time_s: float | None = None
        _open(context, max_side, live=live)

    @property
    def frame_s(self) -> float:
        """How long a picture is shown, on average."""
        return 1 / self._rate

    def decode(self, packet: av.Packet[Any]) -> Iterator[Decoded]:
        """Pictures of a packet; of an empty one, all that are still held. Times rise."""
        began_s = time.monotonic()
        last = packet.size == 0
        try:
            pictures = self._context.decode(None if last else packet)
        except av.FFmpegError:
            self.dropped["decode_error"] += 1
            pictures = []
        if not last:
            self._note_unit(packet)
        for picture in pictures:
            decoded = self._taken(picture, began_s)
            if decoded is not None:
                self.decoded += 1
                yield decoded

    def _note_unit(self, packet: av.Packet[Any]) -> None:
        number, self.received = self.received, self.received + 1
        if self._codec is None or packet.pts is None:
            return
        pts, data = packet.pts, self._unit_of(packet)
        keyframe = bool(data) and is_keyframe(self._codec, data)
        self._begun = self._begun or keyframe
        if not (data and self._begun):
            return
        if keyframe and self._codec is Codec.H264 and _SPS not in nal_types(data):
            data = self._sets + data
        self._awaited[pts] = CodedVideo(self._codec, data, keyframe, number)
        if len(self._awaited) > _AWAITED:
            del self._awaited[next(iter(self._awaited))]  # no picture came of it

    def _unit_of(self, packet: av.Packet[Any]) -> bytes:
        if self._filter is None:
            return bytes(packet)
        try:
            return b"".join(bytes(part) for part in self._filter.filter(packet))
        except av.FFmpegError:
            self._codec = None  # its own pictures cannot be relayed; they can still be upscaled
            return b""

    def _taken(self, picture: av.VideoFrame, began_s: float) -> Decoded | None:
        follows, self._before = self._before, picture.pts
        if self._context.has_b_frames:
            follows = None  # its vectors lead to pictures that were not shown just before
        if picture.is_corrupt:
            self.dropped["decode_error"] += 1
            return None
        if size_problem(Size(picture.width, picture.height), self._max_side):
            self.dropped["unsupported_size"] += 1
            return None
        coded = None if picture.pts is None else self._awaited.pop(picture.pts, None)
        yuv = picture
        if picture.format.name not in _AS_IT_IS:
            yuv = picture.reformat(format="yuv420p")
            coded = None  # other depths and chroma are what few viewers can decode
        self._time_s = self._time_of(picture)
        return Decoded(
            self._time_s,
            picture.pts,
            picture_of(yuv),
            colour_of(picture),
            time.monotonic() - began_s,
            coded,
            motion_of(picture, follows),
        )

    def _time_of(self, picture: av.VideoFrame) -> float:
        if picture.pts is not None and picture.time_base is not None:
            return float(picture.pts * picture.time_base)
        return 0.0 if self._time_s is None else self._time_s + self.frame_s


def _annex_b(stream: VideoStream) -> av.BitStreamFilterContext:
    return av.BitStreamFilterContext("h264_mp4toannexb", stream)


def _open(context: VideoCodecContext, max_side: int, *, live: bool) -> None:
    context.thread_count = 1 if live else 2
    context.thread_type = "SLICE" if live else "AUTO"
    # Checked by FFmpeg before it allocates.
    context.options = {
        "max_pixels": str((max_side + 16) * (max_side + 16)),
        "flags2": "+export_mvs",
    }
