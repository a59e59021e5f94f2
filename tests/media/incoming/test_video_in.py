"""Packets of one receiver to frames, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from tests.clips import TICKS, coded_clip, picture
from tests.media.rtp import rtp_packet

from streamlift.clock import ManualClock
from streamlift.codec import has_picture, is_keyframe, nal_types, parameter_sets
from streamlift.config import IceConfig
from streamlift.frames import Codec, Frame, Size
from streamlift.media.incoming.video_in import VideoReceiver
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.simulcast import Simulcast

CLIP = coded_clip(frames=6)
SETS = parameter_sets(CLIP.units[0])


def without_sets(unit: bytes) -> bytes:
    """The slices of an access unit."""
    parts = [b"\0\0\0\1" + p for p in unit.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]]
    return b"".join(p for p in parts if nal_types(p)[0] not in (7, 8))


def units(data: bytes) -> list[bytes]:
    return [b"\0\0\0\1" + p for p in data.split(b"\0\0\0\1")[1:]]


@asynccontextmanager
async def receiving(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[VideoReceiver]:
    peer = Peer(IceConfig())
    receiver = peer.add("video", "recvonly").receiver
    video = VideoReceiver("test", receiver, max_side=1280, clock=ManualClock())
    monkeypatch.setattr(video._tap, "codec_of", lambda _: Codec.H264)
    try:
        yield video
    finally:
        video.end()
        await peer.close()


async def frames_of(video: VideoReceiver, sent: Sequence[bytes]) -> list[Frame]:
    """What is decoded of these access units, each in a packet of its own."""
    for number, data in enumerate(sent):
        video._take_packet(rtp_packet(number, number * TICKS, 1, data))
    video.end()
    async with asyncio.timeout(20):
        return [frame async for frame in video]


BARE = [without_sets(unit) for unit in CLIP.units]


@pytest.mark.parametrize(
    ("sent", "decoded"),
    [
        (CLIP.units, 6),
        ([SETS, *BARE], 6),  # in a unit of their own, with a time of its own
        ([*units(SETS), *BARE], 6),  # each of the two in one
        ([SETS, SETS, *BARE], 6),
        ([BARE[1], SETS, BARE[1], *BARE], 6),  # some pictures that cannot be decoded before
        ([SETS + BARE[1], *BARE], 6),  # with a picture that is dropped
        (BARE, 0),
    ],
)
async def test_parameter_sets_are_seen_in_whatever_unit_they_come(
    sent: list[bytes], decoded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving(monkeypatch) as video:
        assert len(await frames_of(video, sent)) == decoded


async def test_parameter_sets_of_the_sdp_serve_until_the_stream_brings_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = coded_clip(frames=2, gop=1)
    async with receiving(monkeypatch) as video:
        video.sets.told = {96: SETS, 97: b"\0\0\0\1\x67nothing"}
        assert len(await frames_of(video, [*BARE, *other.units])) == 8


async def test_units_without_a_picture_are_no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    delimiter, end = b"\0\0\0\1\x09\x10", b"\0\0\0\1\x0a"
    async with receiving(monkeypatch) as video:
        sent = [delimiter, SETS, CLIP.units[0], end, CLIP.units[1], delimiter]
        assert len(await frames_of(video, sent)) == 2
        assert video.counts.dropped == {}


def test_the_clip_is_what_these_tests_think() -> None:
    assert {7, 8, 5} <= set(nal_types(CLIP.units[0]))
    assert set(nal_types(SETS)) == {7, 8}
    assert not has_picture(SETS)
    assert all(has_picture(unit) and not parameter_sets(unit) for unit in BARE)


async def test_a_stream_that_is_refreshed_bit_by_bit_is_entered_at_a_recovery_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = 256, 256, "yuv420p"
    context.time_base, context.framerate, context.gop_size = Fraction(1, 25), Fraction(25), 12
    context.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "x264-params": "intra-refresh=1:repeat-headers=1",
    }
    sent = []
    for number in range(60):
        planes = picture(Size(256, 256), number)
        joined = np.concatenate([planes.y.ravel(), planes.u.ravel(), planes.v.ravel()])
        frame = av.VideoFrame.from_ndarray(joined.reshape(384, 256), format="yuv420p")
        frame.pts = number
        sent += [bytes(packet) for packet in context.encode(frame)]
    assert not any(is_keyframe(Codec.H264, unit) for unit in sent[1:])
    async with receiving(monkeypatch) as video:
        decoded = await frames_of(video, sent[5:])
    assert len(decoded) > 20


@pytest.mark.parametrize("order", [(64, 128, 256), (256, 128, 64), (128, 256, 64)])
async def test_of_sizes_that_come_side_by_side_only_the_largest_is_decoded(
    monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...]
) -> None:
    """Whatever was answered, and whichever begins: OBS sends all and calls the largest 0."""
    clips = [coded_clip(Size(side, side), 4, stamped=False).units for side in order]
    async with receiving(monkeypatch) as video:
        video.expect(Simulcast(several=True))
        for number in range(4):
            for ssrc, clip in enumerate(clips, start=1):
                packet = rtp_packet(number, number * TICKS, 1, clip[number], ssrc=ssrc)
                video._take_packet(packet)
        video.end()
        async with asyncio.timeout(20):
            sizes = [frame.size async for frame in video]
    # Until a larger one begins, a smaller one is shown; it never comes back.
    assert sizes[-4:] == [Size(256, 256)] * 4
    assert len(sizes) <= 4 + order.index(256)
