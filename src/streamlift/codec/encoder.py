"""Live video encoders: H.264 by libx264, VP8 by libvpx, both without look-ahead."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol, runtime_checkable

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from streamlift.clock import VIDEO_CLOCK_HZ
from streamlift.codec.levels import h264_level
from streamlift.errors import UpscaleError
from streamlift.frames import Codec, Colour, Plane, Planes, Rendition, Size

__all__ = [
    "AdjustableEncoder",
    "H264Encoder",
    "VideoEncoder",
    "Vp8Encoder",
    "encoded_bitrate_bps",
    "open_encoder",
]

_MATRICES = {"bt601": 6, "bt709": 1}  # av.video.reformatter.Colorspace / ITU-T H.273 codes
_TIME_BASE = Fraction(1, VIDEO_CLOCK_HZ)
_VBV_S = 0.25
_VP8_CPU_USED = -6
"""Negative values are a fixed speed; positive ones adapt to wall time and lose quality quietly."""


THIN_BPS = 2_000_000


class VideoEncoder(Protocol):
    """One open encoder; used by one thread."""

    def encode(self, planes: Planes, pts: int, *, keyframe: bool) -> tuple[bytes, bool]:
        """Encode one picture; returns the access unit and whether it is a keyframe."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class AdjustableEncoder(Protocol):
    """Optional: an encoder whose bit rate may change while it runs, without a keyframe."""

    def set_bitrate(self, bitrate_bps: int) -> int:
        """Change the rate; returns the rate used, which may be lower than asked."""
        ...


def open_encoder(
    rendition: Rendition, size: Size, fps: float, *, preset: str, colour: Colour
) -> VideoEncoder:
    """Open the encoder that `rendition` asks for, at `size` and about `fps` frames a second."""
    bitrate_bps = encoded_bitrate_bps(rendition)
    if rendition.codec is Codec.VP8:
        return Vp8Encoder(size, fps, bitrate_bps)
    profile = "Baseline" if rendition.thin else rendition.profile
    return H264Encoder(size, fps, bitrate_bps, profile=profile, preset=preset, colour=colour)


def encoded_bitrate_bps(rendition: Rendition) -> int:
    """The rate it is encoded at: for a thin link at most 2 Mbit/s and half the stream's own."""
    if rendition.thin:
        return min(THIN_BPS, rendition.bitrate_bps // 2)
    return rendition.bitrate_bps


class H264Encoder:
    """libx264, zero latency, constant bit rate within a 250 ms buffer, keyframes on demand only.

    Output is Annex B with SPS and PPS before every keyframe.
    """

    def __init__(
        self,
        size: Size,
        fps: float,
        bitrate_bps: int,
        *,
        profile: str = "High",
        preset: str = "superfast",
        colour: Colour | None = None,
    ) -> None:
        context = av.CodecContext.create("libx264", "w")
        assert isinstance(context, VideoCodecContext)
        context.profile = profile
        _set_common(context, size, fps, bitrate_bps)
        _set_colour(context, colour or Colour())
        # VBV belongs in these options and bit_rate must equal maxrate at opening: only then does
        # assigning bit_rate later change the running encoder without a keyframe (measured).
        context.options = {
            "preset": preset,
            "tune": "zerolatency",
            "maxrate": str(bitrate_bps),
            "bufsize": str(int(bitrate_bps * _VBV_S)),
            "x264-params": f"keyint=infinite:scenecut=0:level={h264_level(size, fps)}",
        }
        self._context = context
        self._size = size
        self._ceiling_bps = bitrate_bps

    def set_bitrate(self, bitrate_bps: int) -> int:
        """Change the rate of the running encoder; returns the rate used (at most the opening)."""
        used = min(bitrate_bps, self._ceiling_bps)
        self._context.bit_rate = used
        return used

    def encode(self, planes: Planes, pts: int, *, keyframe: bool) -> tuple[bytes, bool]:
        return _encode(self._context, planes, self._size, pts, keyframe=keyframe)

    def close(self) -> None:
        # Draining releases the encoder's threads and buffers at once, not at some later collection.
        self._context.encode(None)


class Vp8Encoder:
    """libvpx VP8 for viewers without H.264: real-time deadline, constant bit rate."""

    def __init__(self, size: Size, fps: float, bitrate_bps: int) -> None:
        context = av.CodecContext.create("libvpx", "w")
        assert isinstance(context, VideoCodecContext)
        _set_common(context, size, fps, bitrate_bps)
        context.gop_size = 3000  # keyframes on demand only
        context.options = {
            "deadline": "realtime",
            "cpu-used": str(_VP8_CPU_USED),
            "lag-in-frames": "0",
            "minrate": str(bitrate_bps),
            "maxrate": str(bitrate_bps),
            "bufsize": str(int(bitrate_bps * _VBV_S)),
            "error-resilient": "1",
        }
        self._context = context
        self._size = size

    def encode(self, planes: Planes, pts: int, *, keyframe: bool) -> tuple[bytes, bool]:
        return _encode(self._context, planes, self._size, pts, keyframe=keyframe)

    def close(self) -> None:
        self._context.encode(None)


def _set_common(context: VideoCodecContext, size: Size, fps: float, bitrate_bps: int) -> None:
    context.width, context.height = size.width, size.height
    context.pix_fmt = "yuv420p"
    context.time_base = _TIME_BASE
    context.framerate = Fraction(fps).limit_denominator(1001)
    context.thread_count = 1
    context.bit_rate = bitrate_bps


def _set_colour(context: VideoCodecContext, colour: Colour) -> None:
    context.colorspace = _MATRICES.get(colour.matrix, _MATRICES["bt601"])
    context.color_range = 2 if colour.full_range else 1


def _encode(
    context: VideoCodecContext, planes: Planes, size: Size, pts: int, *, keyframe: bool
) -> tuple[bytes, bool]:
    if planes.size != size:
        raise UpscaleError(
            "picture size differs from the encoder's", found=str(planes.size), expected=str(size)
        )
    frame = av.VideoFrame(size.width, size.height, "yuv420p")
    for plane, target in zip((planes.y, planes.u, planes.v), frame.planes, strict=True):
        _fill(target, plane)
    frame.pts = pts
    frame.time_base = _TIME_BASE
    frame.pict_type = PictureType.I if keyframe else PictureType.NONE
    packets = context.encode(frame)
    if len(packets) != 1:
        raise UpscaleError(
            "a zero-latency encoder must give one packet a frame", found=len(packets), expected=1
        )
    return bytes(packets[0]), packets[0].is_keyframe


def _fill(target: av.video.plane.VideoPlane, plane: Plane) -> None:
    rows = np.frombuffer(memoryview(target), dtype=np.uint8).reshape(
        target.height, target.line_size
    )
    rows[:, : target.width] = plane
