"""RTP payloads: made once for all viewers, and put together again to the same access unit."""

from __future__ import annotations

import gc

import pytest
from aiortc.codecs.h264 import h264_depayload
from aiortc.codecs.vpx import vp8_depayload
from tests.clips import SMALL, coded_clip

from streamlift.codec import nal_types
from streamlift.frames import Codec, EncodedFrame, Rendition
from streamlift.media.outgoing.whep_viewer import Packetizer

LARGEST_PAYLOAD = 1300


def encoded(data: bytes, codec: Codec, pts: int = 0) -> EncodedFrame:
    return EncodedFrame(pts, SMALL, Rendition(codec, 1_000_000), False, data, 0.0)


@pytest.mark.parametrize("codec", list(Codec))
def test_the_payloads_hold_the_access_unit_and_fit_a_datagram(codec: Codec) -> None:
    depayload = h264_depayload if codec is Codec.H264 else vp8_depayload
    packetizer = Packetizer()
    for number, unit in enumerate(coded_clip(frames=5, codec=codec).units):
        made = packetizer.packetize(encoded(unit, codec, number * 3600))
        assert made.pts == number * 3600
        assert max(map(len, made.payloads)) <= LARGEST_PAYLOAD
        back = b"".join(map(depayload, made.payloads))
        assert _nals(back) == _nals(unit) if codec is Codec.H264 else back == unit


def test_a_frame_is_packetized_once_for_all_viewers() -> None:
    packetizer = Packetizer()
    frame = encoded(coded_clip(frames=1).units[0], Codec.H264)
    assert packetizer.packetize(frame) is packetizer.packetize(frame)


def test_another_frame_at_the_same_address_is_another_frame() -> None:
    packetizer = Packetizer()
    units = coded_clip(frames=40).units
    for number in range(400):
        unit = units[number % len(units)]
        made = packetizer.packetize(encoded(unit, Codec.H264, number))
        assert made.pts == number
        gc.collect(0)


def test_a_keyframe_carries_its_parameter_sets() -> None:
    payloads = Packetizer().packetize(encoded(coded_clip(frames=1).units[0], Codec.H264)).payloads
    assert {7, 8} <= set(nal_types(b"".join(map(h264_depayload, payloads))))


def _nals(annex_b: bytes) -> list[bytes]:
    return [nal.rstrip(b"\0") for nal in annex_b.split(b"\0\0\1") if nal.strip(b"\0")]
