"""Frames for lanes and backends."""

from __future__ import annotations

from tests.clips import TICKS, picture

from streamlift.frames import Codec, Colour, Frame, LaneOptions, Rendition, Size

__all__ = ["H264", "SMALL", "VP8", "frame", "options"]

SMALL = Size(128, 128)
H264 = Rendition(Codec.H264, 1_000_000)
VP8 = Rendition(Codec.VP8, 1_000_000, "")


def frame(number: int, *, arrived_s: float = 100.0, size: Size = SMALL) -> Frame:
    """Frame `number` of a stamped moving pattern; pts at 25 fps."""
    return Frame(number * TICKS, size, picture(size, number), Colour(), arrived_s, decode_s=0.001)


def options(*renditions: Rendition) -> LaneOptions:
    return LaneOptions(frozenset(renditions or {H264}), stream="test", fps=25.0)
