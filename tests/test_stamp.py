"""The pixel stamp survives what codecs and upscalers do, and is not seen where it is not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.clips import coded_clip, decode, picture

from streamlift.codec.decoder import picture_of
from streamlift.errors import MediaError
from streamlift.frames import Codec, Size
from streamlift.stamp import MODULUS, Stamp, draw_stamp, elapsed_ms, read_stamp


@given(number=st.integers(0, 1 << 40), now_s=st.floats(0, 1e7))
def test_what_was_drawn_is_read(number: int, now_s: float) -> None:
    luma = np.full((128, 128), 90, np.uint8)
    draw_stamp(luma, number, now_s)
    assert read_stamp(luma) == Stamp(number % MODULUS, int(now_s * 1000) % MODULUS)


@pytest.mark.parametrize("size", [Size(128, 128), Size(192, 160), Size(512, 512), Size(1280, 720)])
def test_every_size_from_128_carries_a_stamp(size: Size) -> None:
    luma = np.zeros((size.height, size.width), np.uint8)
    draw_stamp(luma, 4711, 12.345)
    assert read_stamp(luma) == Stamp(4711, 12345)


@pytest.mark.parametrize("scale", [2, 4])
def test_a_stamp_is_read_from_an_enlarged_picture(scale: int) -> None:
    luma = picture(Size(256, 256), 31000, now_s=60.5).y
    large = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    assert read_stamp(np.asarray(large, np.uint8), scale=scale) == Stamp(31000, 60500)


@settings(max_examples=20)
@given(sigma=st.floats(0, 25), seed=st.integers(0, 1000))
def test_noise_does_not_change_what_is_read(sigma: float, seed: int) -> None:
    luma = picture(Size(128, 128), 12345, now_s=1.5).y
    noise = np.random.default_rng(seed).normal(0, sigma, luma.shape)
    noisy = np.clip(luma + noise, 0, 255).astype(np.uint8)
    assert read_stamp(noisy) in (None, Stamp(12345, 1500))


def test_stamps_survive_h264() -> None:
    clip = coded_clip()
    stamps = [read_stamp(picture_of(p).y) for p in decode(clip.units, Codec.H264)]
    assert [s.number if s else None for s in stamps] == list(range(len(clip.units)))


def test_a_picture_without_a_stamp_has_none() -> None:
    assert read_stamp(picture(Size(256, 256), 1, stamped=False).y) is None
    assert read_stamp(np.full((128, 128), 128, np.uint8)) is None


@pytest.mark.parametrize("shape", [(127, 128), (128, 127), (64, 64)])
def test_a_picture_below_128_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(MediaError, match="too small"):
        draw_stamp(np.zeros(shape, np.uint8), 0, 0.0)


def test_one_millisecond_changes_one_cell_only() -> None:
    pictures = [np.zeros((128, 128), np.uint8) for _ in range(2)]
    draw_stamp(pictures[0], 7, 1.0235)
    draw_stamp(pictures[1], 7, 1.0245)
    assert np.count_nonzero(pictures[0] != pictures[1]) == 16 * 16


@given(start_s=st.floats(0, 1e6), elapsed=st.floats(0, 64))
def test_elapsed_time_is_right_across_the_wrap(start_s: float, elapsed: float) -> None:
    luma = np.zeros((128, 128), np.uint8)
    draw_stamp(luma, 0, start_s)
    stamp = read_stamp(luma)
    assert stamp is not None
    assert abs(elapsed_ms(stamp, start_s + elapsed) - elapsed * 1000) <= 1.01
