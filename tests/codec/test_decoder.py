"""The decode thread under good, damaged and forged input; it must outlive all of it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.codeccontext import VideoCodecContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.clips import SMALL, TICKS, coded_clip, picture

from streamlift.clock import ManualClock, MonotonicClock
from streamlift.codec import is_keyframe, nal_types
from streamlift.codec.decoder import CodedPicture, DecodeThread
from streamlift.frames import Codec, CodedVideo, Frame, Planes, Size

CODECS = pytest.mark.parametrize("codec", list(Codec))


@dataclass
class Decoded:
    """What a decode thread said until it ended."""

    frames: list[Frame] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def decode(units: list[bytes], codec: Codec, *, max_side: int = 1280) -> Decoded:
    timed = [(number * TICKS, unit) for number, unit in enumerate(units)]
    return decode_timed(timed, codec, max_side=max_side)


def decode_timed(
    units: Sequence[tuple[int, bytes]], codec: Codec = Codec.H264, *, max_side: int = 1280
) -> Decoded:
    """Decode units with their pts; unit n arrived at n seconds."""
    result, done = Decoded(), threading.Event()
    thread = DecodeThread(
        "test",
        max_side=max_side,
        clock=MonotonicClock(),
        deliver=result.frames.append,
        refuse=lambda reason, _: result.refused.append(reason),
        done=done.set,
    )
    for number, (pts, unit) in enumerate(units):
        coded = CodedVideo(codec, unit, is_keyframe(codec, unit))
        assert thread.offer(CodedPicture(pts, coded, float(number)))
    thread.stop()
    assert done.wait(20), "the decode thread did not end"
    return result


@CODECS
def test_every_picture_comes_out_in_order_with_its_own_time(codec: Codec) -> None:
    result = decode(list(coded_clip(frames=12, codec=codec).units), codec)
    assert [f.pts for f in result.frames] == [n * TICKS for n in range(12)]
    assert {f.size for f in result.frames} == {SMALL}
    assert result.refused == []


def test_the_planes_are_the_published_picture() -> None:
    result = decode(list(coded_clip(frames=2).units), Codec.H264)
    wanted = picture(SMALL, 1).y.astype(int)
    assert np.abs(result.frames[1].planes.y.astype(int) - wanted).mean() < 6


def test_a_frame_carries_its_access_unit() -> None:
    units = list(coded_clip(frames=2).units)
    result = decode(units, Codec.H264)
    assert [f.coded and f.coded.data for f in result.frames] == units


def test_pictures_shown_in_another_order_carry_their_own_units() -> None:
    clip = _with_b_frames(40)
    result = decode_timed(clip)
    assert [f.pts for f in result.frames] == [n * TICKS for n in range(38)]
    own = dict(clip)
    assert [f.coded and f.coded.data for f in result.frames] == [own[f.pts] for f in result.frames]
    numbers = [f.coded.number for f in result.frames if f.coded]
    assert len(set(numbers)) == 38
    assert numbers != sorted(numbers), "the clip was to be reordered"


def test_each_picture_arrived_with_its_own_unit() -> None:
    clip = _with_b_frames(20)
    result = decode_timed(clip)
    arrived_s = {pts: float(place) for place, (pts, _) in enumerate(clip)}
    assert [f.arrived_s for f in result.frames] == [arrived_s[f.pts] for f in result.frames]


def test_where_two_units_have_one_time_no_unit_is_better_than_a_wrong_one() -> None:
    units = coded_clip(frames=3).units
    result = decode_timed([(0, units[0]), (TICKS, units[1]), (TICKS, units[2])])
    assert result.frames[0].coded
    assert result.frames[0].coded.data == units[0]
    for shown, unit in zip(result.frames, units, strict=True):
        assert shown.coded is None or shown.coded.data == unit


def test_units_are_numbered_so_that_a_missing_one_shows() -> None:
    units = list(coded_clip(frames=6, gop=3).units)
    units[2] = b"\0\0\0\1\x41damaged"
    numbers = [f.coded.number for f in decode(units, Codec.H264).frames if f.coded]
    assert numbers == [0, 1, 3, 4, 5]


def test_units_that_give_no_picture_are_forgotten() -> None:
    headers = coded_clip(frames=1).units[0]
    headers = headers[: headers.index(b"\0\0\1\x65")]
    done = threading.Event()
    thread = DecodeThread(
        "test",
        max_side=1280,
        clock=MonotonicClock(),
        deliver=lambda _: None,
        refuse=lambda *_: None,
        done=done.set,
    )
    for number in range(100):
        coded = CodedVideo(Codec.H264, headers, False)
        assert thread.offer(CodedPicture(number * TICKS, coded, 0.0))
    thread.stop()
    assert done.wait(20)
    assert len(thread._awaited) <= 64


def test_nothing_stands_before_a_decoder_that_is_too_slow() -> None:
    """A second behind, it gives up what waits and begins again at a keyframe."""
    units = list(coded_clip(frames=8, gop=4).units)
    clock, result, done = ManualClock(100.0), Decoded(), threading.Event()
    at_work, go_on = threading.Event(), threading.Event()

    def deliver(frame: Frame) -> None:
        result.frames.append(frame)
        at_work.set()
        assert go_on.wait(20)

    thread = DecodeThread(
        "test",
        max_side=1280,
        clock=clock,
        deliver=deliver,
        refuse=lambda reason, _: result.refused.append(reason),
        done=done.set,
        most_behind_s=1.0,
    )

    def offer(number: int) -> bool:
        keyframe = is_keyframe(Codec.H264, units[number])
        coded = CodedVideo(Codec.H264, units[number], keyframe)
        return thread.offer(CodedPicture(number * TICKS, coded, clock.now_s()))

    assert offer(0)
    assert at_work.wait(20)
    assert offer(1)
    clock.advance(0.9)
    assert offer(2)
    clock.advance(0.2)
    assert not offer(3)
    assert result.refused == ["decode_busy"] * 2
    go_on.set()
    until_s = time.monotonic() + 20
    while thread._works_on_s is not None and time.monotonic() < until_s:
        time.sleep(0.001)
    for number in range(4, 8):
        assert offer(number)
    thread.stop()
    assert done.wait(20)
    assert [frame.pts // TICKS for frame in result.frames] == [0, 4, 5, 6, 7]


def test_decoding_and_lanes_need_no_webrtc() -> None:
    """A GPU worker and `streamlift upscale` decode on machines that have no aiortc."""
    blocked = (
        "import sys\n"
        "for name in ('aiortc', 'aioice', 'fastapi', 'torch'): sys.modules[name] = None\n"
        "import streamlift.codec.decoder, streamlift.codec.still, streamlift.offline.upscale\n"
        "import tests.engine.test_lane, tests.codec.test_decoder\n"
        "assert not [name for name in sys.modules if name.startswith('streamlift.media')]\n"
    )
    subprocess.run([sys.executable, "-c", blocked], check=True, timeout=60, env=dict(os.environ))


@CODECS
def test_garbage_is_refused_and_the_next_keyframe_decodes(codec: Codec) -> None:
    units = list(coded_clip(frames=6, codec=codec).units)
    noise = random.Random(3).randbytes(3000)
    result = decode([units[0], noise, b"\0", *units], codec)
    assert [f.coded and f.coded.data for f in result.frames][-6:] == units
    assert result.refused


@pytest.mark.parametrize("healing", [1, 2])
def test_after_a_keyframe_lost_all_but_its_parameter_sets_no_picture_comes_late(
    healing: int,
) -> None:
    units = list(coded_clip(frames=6).units)
    without_picture = units[0][: units[0].index(b"\0\0\1\x65")]
    assert nal_types(without_picture)[:2] == [7, 8]
    result = decode([without_picture, *units[1:], *units * healing], Codec.H264)
    assert [f.coded and f.coded.data for f in result.frames] == units * healing
    assert [f.pts for f in result.frames] == [n * TICKS for n in range(6, 6 + 6 * healing)]


def test_a_change_of_codec_and_of_size_is_followed() -> None:
    big = coded_clip(Size(320, 256), frames=2)
    small = coded_clip(frames=2)
    result = decode([*small.units, *big.units, *small.units], Codec.H264)
    assert [str(f.size) for f in result.frames] == ["256x256"] * 2 + ["320x256"] * 2 + [
        "256x256"
    ] * 2


@pytest.mark.parametrize("size", [Size(640, 480), Size(66, 640), Size(128, 62)])
def test_a_size_out_of_range_is_refused_with_its_reason(size: Size) -> None:
    units = list(coded_clip(size, frames=2, stamped=False).units)
    result = decode(units, Codec.H264, max_side=512)
    assert result.frames == []
    assert set(result.refused) <= {"unsupported_size", "decode_error"}
    assert len(result.refused) == 2


def test_a_forged_size_is_refused_before_memory_is_taken() -> None:
    result = decode([_forged_vp8_keyframe(16_383, 16_383)], Codec.VP8)
    assert result.frames == []
    assert result.refused == ["decode_error"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), codec=st.sampled_from(list(Codec)))
def test_no_damage_ends_the_thread(seed: int, codec: Codec) -> None:
    chance = random.Random(seed)
    units = []
    for unit in coded_clip(frames=8, codec=codec).units:
        damaged = bytearray(unit)
        for _ in range(chance.randrange(6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        units.append(bytes(damaged[: chance.randrange(1, len(damaged) + 1)]))
    good = list(coded_clip(frames=3, codec=codec).units)
    result = decode([*units, *good], codec)
    assert [f.coded and f.coded.data for f in result.frames][-3:] == good


def test_a_full_queue_refuses_the_picture() -> None:
    may_go_on, done = threading.Event(), threading.Event()
    thread = DecodeThread(
        "test",
        max_side=1280,
        clock=MonotonicClock(),
        deliver=lambda _: void(may_go_on.wait(20)),
        refuse=lambda *_: None,
        done=done.set,
    )
    unit = coded_clip(frames=1).units[0]
    coded = CodedPicture(0, CodedVideo(Codec.H264, unit, True), 0.0)
    taken = 0
    while thread.offer(coded):
        taken += 1
        assert taken < 1000
    thread.stop()
    may_go_on.set()
    assert done.wait(20)
    assert 256 <= taken <= 258


def _with_b_frames(count: int) -> list[tuple[int, bytes]]:
    """Units with their pts in the order in which they are sent: two B-frames between others."""
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = SMALL.width, SMALL.height, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 90_000), Fraction(25)
    context.options = {"bf": "2", "b_strategy": "0", "g": "20", "preset": "veryfast"}
    packets = []
    for number in range(count):
        shown = av.VideoFrame.from_ndarray(_stacked(picture(SMALL, number)), format="yuv420p")
        shown.pts, shown.time_base = number * TICKS, Fraction(1, 90_000)
        packets += context.encode(shown)
    packets += context.encode(None)
    return [(packet.pts or 0, bytes(packet)) for packet in packets]


def _stacked(planes: Planes) -> npt.NDArray[np.uint8]:
    rows = [plane.reshape(-1, planes.size.width) for plane in planes.each()]
    return np.concatenate(rows)


def void(_: object) -> None:
    """For a callback whose result nobody wants."""


def _forged_vp8_keyframe(width: int, height: int) -> bytes:
    """RFC 6386 section 9.1: a frame tag, the start code, and a size of the forger's choice."""
    tag = (0 | 0 << 1 | 1 << 4 | 200 << 5).to_bytes(3, "little")
    sides = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return tag + b"\x9d\x01\x2a" + sides + bytes(300)
