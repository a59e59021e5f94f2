"""What a model gave back is looked at before it is shown."""

from __future__ import annotations

import numpy as np
import pytest

from streamlift.engine.checks import check_output
from streamlift.errors import UpscaleError
from streamlift.frames import Plane, Planes, Size

LR, HR = Size(64, 64), Size(128, 128)


def test_a_good_picture_passes() -> None:
    check_output(_luma(LR, 120), _planes(HR, 119), HR)


def test_a_wrong_shape_is_refused_with_both_sizes() -> None:
    with pytest.raises(UpscaleError, match="64x64, expected 128x128"):
        check_output(_luma(LR, 120), _planes(LR, 119), HR)


def test_black_out_of_a_lit_scene_is_refused() -> None:
    with pytest.raises(UpscaleError, match="black"):
        check_output(_luma(LR, 120), _planes(HR, 0), HR)


def test_black_out_of_black_is_right() -> None:
    check_output(_luma(LR, 16), _planes(HR, 0), HR)


def test_a_dark_scene_is_no_fault() -> None:
    check_output(_luma(LR, 30), _planes(HR, 16), HR)


def test_a_picture_with_one_lit_sample_is_no_fault() -> None:
    picture = _planes(HR, 0)
    picture.y[:, :8] = 200
    check_output(_luma(LR, 120), picture, HR)


def test_content_that_lies_between_the_samples_is_no_fault() -> None:
    """A grid of bright dots on black, where samples of the enlargement see black only."""
    for side in (64, 78, 100, 128):
        for start in range(4):
            luma = _luma(Size(side, side), 0)
            luma[start::4, start::4] = 235
            hr = _planes(Size(2 * side, 2 * side), 0)
            hr.y[2 * start :: 8, 2 * start :: 8] = 120  # the rest is dark after enlarging
            check_output(luma, hr, hr.size)


def test_the_smallest_picture_can_be_checked() -> None:
    check_output(_luma(Size(2, 2), 120), _planes(Size(4, 4), 100), Size(4, 4))


def _luma(size: Size, level: int) -> Plane:
    return np.full((size.height, size.width), level, np.uint8)


def _planes(size: Size, level: int) -> Planes:
    half = np.full((size.height // 2, size.width // 2), 128, np.uint8)
    return Planes(_luma(size, level), half, half)
