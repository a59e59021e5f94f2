"""Pictures behind a unit wait for it, but not for one that the decoder holds back for good."""

from __future__ import annotations

import asyncio
from fractions import Fraction

import av
import numpy as np
import pytest
from tests.clips import TICKS, picture
from tests.waiting import until

pytest.importorskip("grpc", reason="needs the extra cluster")

from av.video.codeccontext import VideoCodecContext
from tests.engine.frames import SMALL, decoded
from tests.engine.frames import frame as picture_frame

from streamlift.clock import MonotonicClock
from streamlift.cluster.intake import MOST_BEHIND, Intake
from streamlift.cluster.wire import convert
from streamlift.cluster.wire import worker_pb2 as pb
from streamlift.frames import Codec, Frame


def intake(offered: list[int]) -> Intake:
    def offer(frame: Frame) -> None:
        offered.append(frame.pts // TICKS)

    return Intake(
        "s",
        max_side=1280,
        clock=MonotonicClock(),
        offer=offer,
        need_source=lambda reason: None,
    )


def sent_picture(number: int) -> pb.Picture:
    message: pb.ToLane = pb.ToLane.FromString(convert.picture_bytes(picture_frame(number), 0.0))
    return message.picture


def first_unit_with_b_frames() -> pb.Unit:
    """A keyframe whose parameter sets say that pictures are reordered."""
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = SMALL.width, SMALL.height, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 90_000), Fraction(25)
    context.options = {"bf": "2", "b_strategy": "0", "preset": "veryfast"}
    packets = []
    for number in range(8):
        rows = [plane.reshape(-1, SMALL.width) for plane in picture(SMALL, number).each()]
        shown = av.VideoFrame.from_ndarray(np.concatenate(rows), format="yuv420p")
        shown.pts, shown.time_base = number * TICKS, Fraction(1, 90_000)
        packets += context.encode(shown)
    packets += context.encode(None)
    return pb.Unit(pts=0, codec=Codec.H264, keyframe=True, data=bytes(packets[0]))


async def test_pictures_go_on_behind_a_unit_that_the_decoder_holds_back() -> None:
    offered: list[int] = []
    taken = intake(offered)
    taken.unit(first_unit_with_b_frames())
    for number in range(1, 21):
        taken.picture(sent_picture(number))
        assert len(taken._waiting) <= MOST_BEHIND + 1
        await asyncio.sleep(0)
    assert [number for number in offered if number > 0] == list(range(1, 21))
    assert not taken._waiting
    taken.close()


async def test_a_unit_that_is_decoded_comes_before_the_pictures_behind_it() -> None:
    offered: list[int] = []
    taken = intake(offered)
    (first,) = decoded([picture(SMALL, 0)])
    assert first.coded is not None
    taken.unit(convert.unit_message(first, first.coded, 0.0))
    for number in range(1, MOST_BEHIND + 1):
        taken.picture(sent_picture(number))
    await until(lambda: len(offered) == MOST_BEHIND + 1, "all", show=lambda: offered)
    assert offered == list(range(MOST_BEHIND + 1))
    taken.close()


async def test_what_waits_behind_units_that_come_and_go_is_bounded() -> None:
    offered: list[int] = []
    taken = intake(offered)
    # As if none was decoded: the loop never gets to hear of it.
    unit = first_unit_with_b_frames()
    for number in range(0, 100, 2):
        taken.unit(pb.Unit(pts=number * TICKS, codec=unit.codec, keyframe=True, data=unit.data))
        taken.picture(sent_picture(number + 1))
    assert len(taken._waiting) <= 2 * (MOST_BEHIND + 1)
    assert offered == sorted(offered)
    taken.close()
