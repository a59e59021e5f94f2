"""What a child may say: all that ours says arrives, nothing else is believed."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlift.errors import MediaError
from streamlift.frames import Codec, CodedVideo, Colour, IngestCounts, Motion, Planes
from streamlift.media.remote.url import wire
from streamlift.media.remote.url.wire import Buffer, Kind, Shown


def joined(message: list[Buffer]) -> np.ndarray:
    data = b"".join(bytes(memoryview(part).cast("B")) for part in message)
    kind, length = wire.HEADER.unpack_from(data)
    assert kind in set(Kind)
    assert length == len(data) - wire.HEADER.size
    return np.frombuffer(data[wire.HEADER.size :], np.uint8)


def shown(width: int = 70, height: int = 66) -> Shown:
    rng = np.random.default_rng(1)
    half = ((height + 1) // 2, (width + 1) // 2)
    wide = rng.integers(0, 256, (height, width + 10), np.uint8)  # as FFmpeg pads its rows
    planes = Planes(
        wide[:, :width], rng.integers(0, 256, half, np.uint8), rng.integers(0, 256, half, np.uint8)
    )
    coded = CodedVideo(Codec.H264, b"\0\0\1\x65unit", True, 7)
    motion = Motion(np.zeros(3, wire.MOTION), -12)
    return Shown(-5, planes, Colour("bt709", True), 0.002, coded, motion)


def test_a_picture_arrives_as_it_was() -> None:
    sent = shown()
    read = wire.read_picture(joined(wire.write_picture(sent)), 1280)
    assert (read.pts, read.colour, read.decode_s) == (-5, sent.colour, 0.002)
    for one, other in zip(read.planes.each(), sent.planes.each(), strict=True):
        assert np.array_equal(one, other)
    assert read.coded is not None
    assert (read.coded.codec, read.coded.data) == (Codec.H264, b"\0\0\1\x65unit")
    assert (read.coded.keyframe, read.coded.number) == (True, 7)
    assert read.motion is not None
    assert (len(read.motion.vectors), read.motion.follows) == (3, -12)


@given(st.binary(max_size=200))
def test_no_bytes_are_read_as_a_picture_that_cannot_be(data: bytes) -> None:
    with pytest.raises(MediaError):
        wire.read_picture(np.frombuffer(data, np.uint8), 1280)


@given(at=st.integers(0, 44), value=st.integers(0, 255))
def test_a_picture_with_a_changed_head_is_refused_or_consistent(at: int, value: int) -> None:
    data = joined(wire.write_picture(shown())).copy()
    data[at] = value
    try:
        read = wire.read_picture(data, 1280)
    except MediaError:
        return
    assert read.planes.size.pixels * 3 // 2 <= len(data)


def test_a_picture_larger_than_allowed_is_refused() -> None:
    data = joined(wire.write_picture(shown(128, 64)))
    with pytest.raises(MediaError):
        wire.read_picture(data, 127)


def test_counts_have_known_reasons_only() -> None:
    counts = IngestCounts(10, 8, {"stale": 1, "decode_error": 1, "invented": 5})
    read = wire.read_counts(joined(wire.write_counts(counts)).tobytes())
    assert read == IngestCounts(10, 8, {"stale": 1, "decode_error": 1})
    with pytest.raises(MediaError):
        wire.read_counts(b"123")


def test_text_is_one_line_of_bounded_length() -> None:
    message = wire.write_reason(Kind.DOING, "a\nb\x1b[31m" + "x" * 9999)
    read = wire.read_reason(joined(message).tobytes())
    assert read.startswith("a b [31m")
    assert len(joined(message)) <= wire.most_bytes(Kind.DOING, 1280)


def test_sound_arrives_and_an_empty_packet_is_refused() -> None:
    assert wire.read_sound(joined(wire.write_sound(-960, b"opus")).tobytes()) == (-960, b"opus")
    with pytest.raises(MediaError):
        wire.read_sound(struct.pack("<q", 1))
