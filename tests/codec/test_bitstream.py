"""Finding keyframes in coded pictures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.clips import coded_clip

from streamlift.codec import is_keyframe, nal_types
from streamlift.frames import Codec

IDR, SLICE, SPS, PPS = 5, 1, 7, 8


@pytest.mark.parametrize("codec", list(Codec))
def test_only_the_first_and_every_wanted_picture_is_a_keyframe(codec: Codec) -> None:
    clip = coded_clip(codec=codec, frames=20, gop=10)
    found = [n for n, unit in enumerate(clip.units) if is_keyframe(codec, unit)]
    assert found == [0, 10]


def test_a_keyframe_carries_its_parameter_sets() -> None:
    key, predicted = coded_clip(frames=20, gop=10).units[10:12]
    types = nal_types(key)
    assert types.index(SPS) < types.index(PPS) < types.index(IDR)
    assert nal_types(predicted) == [SLICE]


def test_start_codes_of_three_and_four_bytes_are_both_seen() -> None:
    assert nal_types(b"\0\0\1\x67a\0\0\0\1\x68b\0\0\1\x65c") == [SPS, PPS, IDR]


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\1", b"\0\0\0\1", b"no start code"])
def test_what_is_no_access_unit_has_no_types(data: bytes) -> None:
    assert nal_types(data) == []
    assert not is_keyframe(Codec.H264, data)


def test_an_empty_vp8_frame_is_no_keyframe() -> None:
    assert not is_keyframe(Codec.VP8, b"")


@given(st.binary(max_size=200), st.sampled_from(Codec))
def test_any_bytes_are_read_without_an_exception(data: bytes, codec: Codec) -> None:
    assert is_keyframe(codec, data) in (True, False)
