"""The bytes of RTMP: values, chunks and tags, also those that a hostile server sends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.clips import coded_clip

from streamlift.codec import nal_types
from streamlift.errors import MediaError
from streamlift.media.targets import amf
from streamlift.media.targets.chunks import ChunkReader, Message, cut
from streamlift.media.targets.flv import avc_header, avc_picture, read_unit

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXT.filter(bool), inner, max_size=3)
    ),
    max_leaves=6,
)


class Held:
    """Bytes that are all there; `read` fails as a line does when they end."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self, count: int) -> bytes:
        if count > len(self.data):
            raise MediaError("the server closed the connection")
        taken, self.data = self.data[:count], self.data[count:]
        return taken


@given(st.lists(VALUES, max_size=4))
def test_values_are_read_as_they_were_written(values: list[amf.Value]) -> None:
    assert amf.decode(amf.encode(*values)) == values


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused_as_values(data: bytes) -> None:
    with suppress(MediaError):
        amf.decode(data)


@pytest.mark.parametrize(
    "data",
    [b"\x03\x00\x01a" * 5000, b"\x0a\xff\xff\xff\xff" + b"\x05" * 5000, b"\x0c\xff\xff\xff\xff"],
    ids=["deep", "many", "long"],
)
def test_what_would_cost_much_is_refused(data: bytes) -> None:
    with pytest.raises(MediaError):
        amf.decode(data)


@pytest.mark.parametrize("timestamp", [0, 40, 0xFFFFFE, 0xFFFFFF, 0x1000000, 0xFFFFFFFF])
@pytest.mark.parametrize("length", [0, 1, 128, 129, 4096, 60_000])
async def test_a_message_survives_its_chunks_whatever_its_time(timestamp: int, length: int) -> None:
    first = Message(9, 1, timestamp, bytes(n % 251 for n in range(length)))
    second = Message(8, 1, timestamp, b"sound")
    reader = ChunkReader(Held(cut(first, 6, 128) + cut(second, 4, 128)))
    assert await reader.message() == first
    assert await reader.message() == second


async def test_messages_of_two_channels_may_be_mixed() -> None:
    one, other = (
        cut(Message(9, 1, 0, b"a" * 200), 6, 128),
        cut(Message(8, 1, 0, b"b" * 200), 4, 128),
    )
    at = 12 + 128
    reader = ChunkReader(Held(one[:at] + other[:at] + one[at:] + other[at:]))
    assert [(await reader.message()).data[:1] for _ in range(2)] == [b"a", b"b"]


async def test_later_messages_may_leave_out_what_the_one_before_said() -> None:
    same_stream = bytes([0x46]) + b"\x00\x00\x28" + b"\x00\x00\x02\x09" + b"cd"
    same_size = bytes([0x86]) + b"\x00\x00\x28" + b"ef"
    all_the_same = bytes([0xC6]) + b"gh"
    data = cut(Message(9, 7, 1000, b"ab"), 6) + same_stream + same_size + all_the_same
    reader = ChunkReader(Held(data))
    told = [await reader.message() for _ in range(4)]
    assert [m.timestamp for m in told] == [1000, 1040, 1080, 1120]
    assert [m.data for m in told] == [b"ab", b"cd", b"ef", b"gh"]
    assert {m.stream for m in told} == {7}


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused_as_chunks(data: bytes) -> None:
    async def read() -> None:
        reader = ChunkReader(Held(data))
        with suppress(MediaError):
            while True:  # the end of the bytes is an error as well
                await reader.message()

    asyncio.run(read())


async def test_a_message_that_would_fill_memory_is_refused_before_it_is_read() -> None:
    head = bytes([6]) + b"\x00\x00\x00" + b"\xff\xff\xff" + b"\x14" + bytes(4)
    with pytest.raises(MediaError, match="too long"):
        await ChunkReader(Held(head)).message()


def test_a_picture_is_told_apart_from_its_parameter_sets() -> None:
    unit = read_unit(coded_clip().units[0])
    assert unit.sps[0] & 0x1F == 7
    assert unit.pps[0] & 0x1F == 8
    header = avc_header(unit)
    assert header[:5] == b"\x17\x00\x00\x00\x00"
    assert header[5:9] == b"\x01" + unit.sps[1:4]
    assert unit.sps in header
    tag = avc_picture(unit, keyframe=True)
    assert tag[:5] == b"\x17\x01\x00\x00\x00"
    lengths, at = [], 5
    while at < len(tag):
        length = int.from_bytes(tag[at : at + 4], "big")
        lengths.append(tag[at + 4] & 0x1F)
        at += 4 + length
    assert at == len(tag)
    assert lengths == [k for k in nal_types(coded_clip().units[0]) if k not in (7, 8, 9)]
    assert avc_picture(read_unit(coded_clip().units[1]), keyframe=False)[0] == 0x27


def test_a_first_picture_without_parameter_sets_is_no_beginning() -> None:
    with pytest.raises(MediaError, match="parameter sets"):
        avc_header(read_unit(coded_clip().units[1]))
