"""The baseline coder of the quality figures: what a publisher's encoder does to a clip.

PyAV is imported here although only `media` and `codec` normally do: this coder is part of the
definition of the figures (x264 veryfast, zerolatency, baseline profile, average bit rate in bits
per pixel of a 512x512@25 stream), not an encoder that the service sends with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import numpy as np

from streamlift.errors import MediaError
from streamlift.frames import Codec, Plane, Planes

if TYPE_CHECKING:
    import av

__all__ = ["Coding", "area_half", "code_clip", "luma_planes", "video_encoder", "video_frame"]

REFERENCE_PIXELS = 512 * 512
"""Bit rates are quoted for this picture size, whatever the clip's; the clip gets its share."""


@dataclass(frozen=True, slots=True)
class Coding:
    """How a clip is coded. Either `bitrate_bps` (average, as at 512x512@25) or `crf` is set."""

    bitrate_bps: int | None = None
    crf: int | None = None
    codec: Codec = Codec.H264
    preset: str = "veryfast"
    profile: str = "baseline"
    keyframe_every: int = 250

    def __post_init__(self) -> None:
        if (self.bitrate_bps is None) == (self.crf is None):
            raise MediaError(
                "a clip is coded at a bit rate or at a constant quality; set exactly one",
                found={"bitrate_bps": self.bitrate_bps, "crf": self.crf},
            )


def code_clip(clip: Sequence[Planes], coding: Coding, *, fps: int = 25) -> list[Planes]:
    """Encode and decode a clip of even-sized pictures; as many pictures come back as went in.

    Raises MediaError when the coder loses a picture.
    """
    import av

    encoder = video_encoder(clip[0], coding, fps)
    name = "h264" if coding.codec is Codec.H264 else "vp8"
    decoder = cast("av.VideoCodecContext", av.CodecContext.create(name, "r"))
    coded: list[Planes] = []
    for index, planes in enumerate(clip):
        frame = video_frame(planes)
        frame.pts = index
        for packet in encoder.encode(frame):
            coded += [_planes(picture) for picture in decoder.decode(packet)]
    for packet in encoder.encode(None):
        coded += [_planes(picture) for picture in decoder.decode(packet)]
    coded += [_planes(picture) for picture in decoder.decode(None)]
    if len(coded) != len(clip):
        raise MediaError("the coder lost pictures", found=len(coded), expected=len(clip))
    return coded


def area_half(planes: Planes) -> Planes:
    """Halve a picture whose sides divide by 4, each plane by 2x2 means."""
    return Planes(*(_half(plane) for plane in (planes.y, planes.u, planes.v)))


def luma_planes(y: Plane) -> Planes:
    """A grey picture: the given luma, neutral chroma."""
    height, width = y.shape
    chroma = np.full(((height + 1) // 2, (width + 1) // 2), 128, np.uint8)
    return Planes(y, chroma, chroma)


def video_encoder(first: Planes, coding: Coding, fps: int) -> av.VideoCodecContext:
    """An encoder for pictures of the first one's size, coded so."""
    import av

    name = "libx264" if coding.codec is Codec.H264 else "libvpx"
    encoder = cast("av.VideoCodecContext", av.CodecContext.create(name, mode="w"))
    encoder.width, encoder.height = first.size.width, first.size.height
    encoder.pix_fmt = "yuv420p"
    encoder.framerate = Fraction(fps)
    encoder.time_base = Fraction(1, fps)
    encoder.gop_size = coding.keyframe_every
    encoder.thread_count = 1
    if coding.codec is Codec.H264:
        options = {"preset": coding.preset, "tune": "zerolatency", "profile": coding.profile}
    else:
        options = {"deadline": "realtime", "cpu-used": "6", "lag-in-frames": "0"}
    if coding.crf is not None:
        options["crf"] = str(coding.crf)
        encoder.bit_rate = 0
    elif coding.bitrate_bps is not None:
        encoder.bit_rate = round(coding.bitrate_bps * first.size.pixels / REFERENCE_PIXELS)
    encoder.options = options
    return encoder


def video_frame(planes: Planes) -> av.VideoFrame:
    """The picture as PyAV's, copied."""
    import av

    frame = av.VideoFrame(planes.size.width, planes.size.height, "yuv420p")
    for target, source in zip(frame.planes, (planes.y, planes.u, planes.v), strict=True):
        rows = np.frombuffer(memoryview(target), np.uint8).reshape(target.height, target.line_size)
        rows[:, : target.width] = source
    return frame


def _planes(frame: av.VideoFrame) -> Planes:
    def plane(index: int) -> Plane:
        source = frame.planes[index]
        rows = np.frombuffer(memoryview(source), np.uint8).reshape(source.height, source.line_size)
        return rows[:, : source.width].copy()

    return Planes(plane(0), plane(1), plane(2))


def _half(plane: Plane) -> Plane:
    import cv2

    height, width = plane.shape
    return cast(Plane, cv2.resize(plane, (width // 2, height // 2), interpolation=cv2.INTER_AREA))
