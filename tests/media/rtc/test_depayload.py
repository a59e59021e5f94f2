"""Payloads of packets to coded bytes, whole, short and damaged."""

from __future__ import annotations

import pytest
from aiortc.codecs.h264 import H264PayloadDescriptor
from hypothesis import given
from hypothesis import strategies as st

from streamlift.media.rtc.depayload import h264_depayload, lenient_vp8

START = b"\0\0\0\1"


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        (b"\x0a", START + b"\x0a"),  # an end of sequence is one byte
        (b"\x09\x10", START + b"\x09\x10"),
        (b"\x65abc", START + b"\x65abc"),
        (b"\x7c\x85abc", START + b"\x65abc"),  # FU-A: the first fragment,
        (b"\x7c\x05def", b"def"),  # one in between,
        (b"\x7c\x45", b""),  # and a last one with nothing in it
        (b"\x18\0\2\x67a\0\1\x0a", START + b"\x67a" + START + b"\x0a"),  # STAP-A
        (b"\x18\0\2\x67a\0\5\x68b", START + b"\x67a"),  # of a cut one what is whole
        (b"\x18\0\0\0\2\x68b", START + b"\x68b"),
        (b"\x18\0", b""),
        (b"\x7c", b""),
        (b"\x1d\x85abc", b""),  # FU-B belongs to the interleaved mode
        (b"\0abc", b""),
        (b"", b""),
    ],
)
def test_h264_packets_give_annex_b(payload: bytes, data: bytes) -> None:
    assert h264_depayload(payload) == data


@given(payload=st.binary(max_size=60))
def test_where_the_library_reads_a_payload_it_reads_the_same(payload: bytes) -> None:
    try:
        _, expected = H264PayloadDescriptor.parse(payload)
    except ValueError:
        h264_depayload(payload)  # anything but an error
        return
    if payload[0] & 0x1F == 24 and b"\0\0" in payload:
        return  # an empty unit in a STAP-A, which it keeps
    assert h264_depayload(payload) == expected


@given(payload=st.binary(max_size=20))
def test_no_vp8_payload_is_an_error(payload: bytes) -> None:
    assert isinstance(lenient_vp8(payload), bytes)
