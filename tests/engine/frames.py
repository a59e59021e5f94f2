"""Frames for lanes and backends."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tests.clips import TICKS, picture

from streamlift.clock import MonotonicClock
from streamlift.codec import is_keyframe, open_encoder
from streamlift.codec.decoder import CodedPicture, DecodeThread
from streamlift.frames import Codec, CodedVideo, Colour, Frame, LaneOptions, Planes, Rendition, Size

__all__ = ["H264", "SMALL", "VP8", "decoded", "frame", "options"]

SMALL = Size(128, 128)
H264 = Rendition(Codec.H264, 1_000_000)
VP8 = Rendition(Codec.VP8, 1_000_000, "")


def frame(number: int, *, arrived_s: float = 100.0, size: Size = SMALL) -> Frame:
    """Frame `number` of a stamped moving pattern; pts at 25 fps."""
    return Frame(number * TICKS, size, picture(size, number), Colour(), arrived_s, decode_s=0.001)


def options(*renditions: Rendition) -> LaneOptions:
    return LaneOptions(frozenset(renditions or {H264}), stream="test", fps=25.0)


def decoded(
    pictures: Sequence[Planes], *, codec: Codec = Codec.H264, bitrate_bps: int = 1_500_000
) -> list[Frame]:
    """The pictures as a publisher codes them and the decode thread gives them, motion included."""
    rendition = Rendition(codec, bitrate_bps, "Baseline" if codec is Codec.H264 else "")
    encoder = open_encoder(rendition, pictures[0].size, 25, preset="superfast", colour=Colour())
    frames: list[Frame] = []
    done = threading.Event()
    thread = DecodeThread(
        "test",
        max_side=1280,
        clock=MonotonicClock(),
        deliver=frames.append,
        refuse=lambda *_: None,
        done=done.set,
    )
    for number, planes in enumerate(pictures):
        data, _ = encoder.encode(planes, number * TICKS, keyframe=number == 0)
        coded = CodedVideo(codec, data, is_keyframe(codec, data))
        assert thread.offer(CodedPicture(number * TICKS, coded, 100.0))
    encoder.close()
    thread.stop()
    assert done.wait(20)
    assert len(frames) == len(pictures)
    return frames
