"""Each figure gives the value that can be computed by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from streamlift.errors import MediaError
from streamlift.frames import Plane
from streamlift.quality import (
    e_warp,
    flicker,
    motion_of,
    psnr,
    sharpness_ratio,
    shift_flicker,
    ssim,
)
from streamlift.quality.synthetic import synthetic_clip


@pytest.fixture(scope="module")
def picture() -> Plane:
    return synthetic_clip("crowd", side=192, frames=1)[0]


def test_psnr_of_an_error_of_five_levels(picture: Plane) -> None:
    grey = np.full_like(picture, 100)
    assert psnr(grey + 5, grey) == pytest.approx(20 * np.log10(255 / 5))


def test_psnr_of_equal_pictures_is_infinite(picture: Plane) -> None:
    assert psnr(picture, picture) == float("inf")


def test_the_border_of_eight_pixels_does_not_count(picture: Plane) -> None:
    changed = picture.copy()
    changed[:8], changed[:, -8:] = 0, 255
    assert psnr(changed, picture) == float("inf")


def test_pictures_of_different_sizes_are_refused(picture: Plane) -> None:
    with pytest.raises(MediaError, match="differ in size"):
        psnr(picture[:64], picture)


def test_ssim_is_one_for_the_truth_and_less_for_a_blur(picture: Plane) -> None:
    blurred = cv2.GaussianBlur(picture, (0, 0), 1.0).astype(np.uint8)
    assert ssim(picture, picture) == pytest.approx(1)
    assert 0.3 < ssim(blurred, picture) < 0.99


def test_ssim_of_flat_pictures_is_that_of_their_means() -> None:
    dark, light = (np.full((64, 64), level, np.uint8) for level in (100, 120))
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert ssim(dark, light) == pytest.approx(expected, rel=1e-4)


def test_sharpness_is_one_for_the_truth_and_less_for_a_blur(picture: Plane) -> None:
    assert sharpness_ratio(picture, picture) == 1
    assert sharpness_ratio(cv2.GaussianBlur(picture, (0, 0), 1.0).astype(np.uint8), picture) < 0.7


@pytest.mark.parametrize("shift", [(0, 0), (1, 1), (3, 2)])
def test_a_picture_that_only_moves_does_not_flicker(picture: Plane, shift: tuple[int, int]) -> None:
    clip = [np.roll(picture, (shift[1] * t, shift[0] * t), (0, 1)) for t in range(6)]
    assert shift_flicker(clip, shift) == 0


def test_exact_flicker_of_fresh_noise_is_its_spread_times_root_two() -> None:
    rng = np.random.default_rng(0)
    clip = [np.rint(128 + rng.normal(0, 4, (160, 160))).astype(np.uint8) for _ in range(8)]
    assert shift_flicker(clip, (0, 0)) == pytest.approx(4 * 2**0.5, rel=0.02)


def test_the_truth_has_no_flicker_against_itself_and_follows_its_own_motion() -> None:
    truth = synthetic_clip("leaves", side=192, frames=4)
    motions = motion_of(truth)
    assert flicker(truth, truth, motions) == 0
    assert e_warp(truth, motions) < 6


def test_fresh_noise_shows_in_both_flicker_figures() -> None:
    rng = np.random.default_rng(0)
    truth = synthetic_clip("clouds", side=192, frames=4)
    motions = motion_of(truth)
    noisy = [np.clip(y + rng.normal(0, 6, y.shape), 0, 255).astype(np.uint8) for y in truth]
    assert e_warp(noisy, motions) > e_warp(truth, motions) + 3
    assert flicker(noisy, truth, motions) > 5


def test_motion_across_a_cut_is_not_trusted() -> None:
    dark = synthetic_clip("clouds", side=192, frames=1)[0] // 4
    (motion,) = motion_of([dark, 255 - dark])
    assert motion.trusted.mean() < 0.05
