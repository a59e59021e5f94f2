"""Small stamped pictures and clips, coded once, for peers that should cost the tests little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from streamlift.codec import open_encoder
from streamlift.frames import Codec, Colour, Plane, Planes, Rendition, Size
from streamlift.stamp import draw_stamp

__all__ = ["SMALL", "TICKS", "CodedClip", "coded_clip", "decode", "picture"]

SMALL = Size(256, 256)
TICKS = 3600
"""90 kHz ticks of a frame at 25 fps."""


@dataclass(frozen=True, slots=True)
class CodedClip:
    """Access units of a clip whose first is a keyframe; unit i carries stamp number i."""

    codec: Codec
    size: Size
    units: tuple[bytes, ...]


def picture(size: Size, number: int, *, now_s: float = 0.0, stamped: bool = True) -> Planes:
    """A moving pattern with the stamp of frame `number`; the same arguments, the same picture."""
    y = np.roll(_texture(size), 3 * number, axis=1).copy()
    half = (size.height // 2, size.width // 2)
    if stamped:
        draw_stamp(y, number, now_s)
    return Planes(y, np.full(half, 110, np.uint8), np.full(half, 140, np.uint8))


@lru_cache
def coded_clip(
    size: Size = SMALL,
    frames: int = 50,
    codec: Codec = Codec.H264,
    gop: int = 0,
    stamped: bool = True,
) -> CodedClip:
    """A clip of stamped pictures; a keyframe first, and every `gop` frames if that is not 0."""
    rendition = Rendition(codec, 1_500_000, "Baseline" if codec is Codec.H264 else "")
    encoder = open_encoder(rendition, size, 25, preset="superfast", colour=Colour())
    units = []
    for number in range(frames):
        keyframe = number == 0 or (gop > 0 and number % gop == 0)
        shown = picture(size, number, stamped=stamped)
        data, _ = encoder.encode(shown, number * TICKS, keyframe=keyframe)
        units.append(data)
    encoder.close()
    return CodedClip(codec, size, tuple(units))


def decode(units: Sequence[bytes], codec: Codec) -> list[VideoFrame]:
    """The pictures of a run of access units that begins with a keyframe."""
    context = av.CodecContext.create({Codec.H264: "h264", Codec.VP8: "vp8"}[codec], "r")
    assert isinstance(context, VideoCodecContext)
    context.thread_count = 1
    pictures = [p for unit in units for p in context.decode(av.Packet(unit))]
    return [*pictures, *context.decode(None)]


@lru_cache
def _texture(size: Size) -> Plane:
    rows, columns = np.mgrid[: size.height, : size.width]
    waves = 100 + 40 * np.sin(columns / 9) + 30 * np.sin(rows / 13 + columns / 31)
    noise = np.random.default_rng(1).normal(0, 4, (size.height, size.width))
    texture: Plane = np.clip(waves + noise, 16, 235).astype(np.uint8)
    return texture
