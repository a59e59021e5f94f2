"""The temporal stabiliser: what it calms, what it leaves alone, and when it forgets."""

from __future__ import annotations

import tracemalloc
from typing import Any, cast

import cv2
import numpy as np
import pytest
from tests.engine.frames import decoded

from streamlift.engine.stabilise import CUT_RESIDUAL, Stabiliser
from streamlift.errors import MediaError
from streamlift.frames import Frame, Motion, Plane, Planes, Stabilise
from streamlift.quality.coding import Coding, area_half, code_clip, luma_planes
from streamlift.quality.figures import psnr, shift_flicker
from streamlift.quality.synthetic import synthetic_clip


@pytest.fixture(scope="module")
def picture() -> Plane:
    return synthetic_clip("leaves", side=256, frames=1)[0]


def test_the_first_frame_is_returned_as_it_is(picture: Plane) -> None:
    lr, hr = _pair(picture)
    assert Stabiliser(Stabilise.LITE).apply(lr, hr) is hr


def test_off_returns_every_frame_as_it_is(picture: Plane) -> None:
    stabiliser = Stabiliser(Stabilise.OFF)
    lr, hr = _pair(picture)
    stabiliser.apply(lr, hr)
    assert stabiliser.apply(lr, hr) is hr


@pytest.mark.parametrize("shift", [(0, 0), (1, 1), (3, 2)])
@pytest.mark.parametrize("half_flow", [False, True])
def test_exact_flicker_of_coded_video_falls_by_a_quarter(
    picture: Plane, shift: tuple[int, int], half_flow: bool
) -> None:
    clip = _noisy_coded_clip(picture, shift)
    plain = [_bicubic(lr) for lr in clip]
    stabiliser = Stabiliser(Stabilise.LITE, half_flow=half_flow)
    calm = [stabiliser.apply(lr, luma_planes(hr)).y for lr, hr in zip(clip, plain, strict=True)]
    share = 0.85 if half_flow else 0.75
    assert shift_flicker(calm, shift) < share * shift_flicker(plain, shift)


def test_strong_calms_invented_detail_by_half_and_comes_nearer_the_truth(picture: Plane) -> None:
    """A model that invents detail is played by fresh fine noise on each true frame."""
    rng = np.random.default_rng(3)
    truth = [np.roll(picture, (2 * t, 2 * t), (0, 1)) for t in range(14)]
    invented = [_u8(y + cv2.GaussianBlur(rng.normal(0, 16, y.shape), (0, 0), 0.8)) for y in truth]
    stabiliser = Stabiliser(Stabilise.STRONG)
    calm = [
        stabiliser.apply(area_half(luma_planes(y)).y, luma_planes(hr)).y
        for y, hr in zip(truth, invented, strict=True)
    ]
    assert shift_flicker(calm, (2, 2)) < 0.45 * shift_flicker(invented, (2, 2))
    assert psnr(calm[-1], truth[-1]) > psnr(invented[-1], truth[-1])


def test_brightness_does_not_lag(picture: Plane) -> None:
    stabiliser = Stabiliser(Stabilise.STRONG)
    for _ in range(5):
        stabiliser.apply(*_pair(picture))
    brighter = _u8(picture + 3.0)
    out = stabiliser.apply(*_pair(brighter))
    assert abs(float(out.y.mean()) - float(_pair(brighter)[1].y.mean())) < 0.1


def test_a_scene_cut_is_counted_and_shows_nothing_of_the_old_scene(picture: Plane) -> None:
    stabiliser = Stabiliser(Stabilise.STRONG)
    stabiliser.apply(*_pair(picture))
    stabiliser.apply(*_pair(picture))
    lr, hr = _pair(_u8(255.0 - picture[::-1].astype(np.float32)))
    assert float(cv2.absdiff(lr, _pair(picture)[0]).mean()) > CUT_RESIDUAL
    assert stabiliser.apply(lr, hr) is hr
    assert stabiliser.cuts == 1


def test_a_change_of_size_starts_again(picture: Plane) -> None:
    stabiliser = Stabiliser(Stabilise.LITE)
    stabiliser.apply(*_pair(picture))
    lr, hr = _pair(np.ascontiguousarray(picture[:128]))
    assert stabiliser.apply(lr, hr) is hr


@pytest.mark.parametrize(("ticks", "forgets"), [(3600, False), (45_000, False), (45_001, True)])
def test_a_gap_of_over_half_a_second_starts_again(
    picture: Plane, ticks: int, forgets: bool
) -> None:
    stabiliser = Stabiliser(Stabilise.LITE)
    lr, hr = _pair(picture)
    stabiliser.apply(lr, hr, pts=1000)
    assert (stabiliser.apply(lr, hr, pts=1000 + ticks) is hr) == forgets


def test_a_timestamp_that_goes_back_starts_again(picture: Plane) -> None:
    stabiliser = Stabiliser(Stabilise.LITE)
    lr, hr = _pair(picture)
    stabiliser.apply(lr, hr, pts=9000)
    assert stabiliser.apply(lr, hr, pts=9000 - 3600) is hr


def test_reset_forgets(picture: Plane) -> None:
    stabiliser = Stabiliser(Stabilise.LITE)
    lr, hr = _pair(picture)
    stabiliser.apply(lr, hr)
    stabiliser.reset()
    assert stabiliser.apply(lr, hr) is hr


def test_lite_leaves_chroma_alone_and_strong_calms_it(picture: Plane) -> None:
    rng = np.random.default_rng(5)
    lr, hr = _pair(picture)
    before = Planes(hr.y, *(_u8(128 + rng.normal(0, 9, hr.u.shape)) for _ in range(2)))
    now = Planes(hr.y, *(_u8(128 + rng.normal(0, 9, hr.u.shape)) for _ in range(2)))
    lite, strong = Stabiliser(Stabilise.LITE), Stabiliser(Stabilise.STRONG)
    for stabiliser in (lite, strong):
        stabiliser.apply(lr, before)
    assert lite.apply(lr, now).u is now.u
    changed = strong.apply(lr, now)
    assert _spread(changed.u, before.u) < 0.8 * _spread(now.u, before.u)
    assert _spread(changed.v, before.v) < 0.8 * _spread(now.v, before.v)


def test_strength_may_change_in_mid_stream(picture: Plane) -> None:
    stabiliser = Stabiliser(Stabilise.LITE)
    lr, hr = _pair(picture)
    stabiliser.apply(lr, hr)
    for strength in (Stabilise.STRONG, Stabilise.OFF, Stabilise.LITE):
        stabiliser.strength = strength
        assert stabiliser.apply(lr, hr) is hr
    assert stabiliser.apply(lr, hr) is not hr


def test_planes_with_padded_rows_give_the_same_picture(picture: Plane) -> None:
    tight, loose = Stabiliser(Stabilise.LITE), Stabiliser(Stabilise.LITE)
    for step in (0, 1):
        lr, hr = _pair(np.ascontiguousarray(np.roll(picture, step, 1)))
        expected = tight.apply(lr, hr)
        found = loose.apply(_padded_rows(lr), Planes(_padded_rows(hr.y), hr.u, hr.v))
    assert np.array_equal(found.y, expected.y)


@pytest.mark.parametrize("size", [(16, 16), (34, 50), (90, 35)])
def test_small_and_odd_pictures_work(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    stabiliser = Stabiliser(Stabilise.STRONG, half_flow=True)
    for _ in range(3):
        lr = rng.integers(100, 120, size, dtype=np.uint8)
        hr = luma_planes(_bicubic(lr))
        assert stabiliser.apply(lr, hr).size == hr.size


def test_an_output_that_is_no_multiple_of_the_input_is_refused(picture: Plane) -> None:
    with pytest.raises(MediaError, match="whole multiple"):
        Stabiliser(Stabilise.LITE).apply(picture[:100, :100], luma_planes(picture[:150, :150]))


def test_lite_makes_no_float_picture_of_the_output(picture: Plane) -> None:
    """Memory traffic is what small machines lack: one such picture is 4 bytes a pixel."""
    large = np.ascontiguousarray(np.tile(picture, (4, 4)))
    stabiliser = Stabiliser(Stabilise.LITE)
    for t in range(3):
        lr, hr = _pair(np.ascontiguousarray(np.roll(large, t, 1)))
        tracemalloc.start()
        stabiliser.apply(lr, hr)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 * large.size


def _moved_clip(picture: Plane, shift: tuple[int, int]) -> list[tuple[Frame, Planes]]:
    """Frames of a panned picture as the decode thread gives them, and bicubic outputs."""
    rng = np.random.default_rng(1)
    clip = []
    for t in range(14):
        moved = np.ascontiguousarray(np.roll(picture, (shift[1] * t, shift[0] * t), (0, 1)))
        half = area_half(luma_planes(moved)).y
        clip.append(luma_planes(_u8(half + rng.normal(0, 1.0, half.shape))))
    frames = decoded(clip, bitrate_bps=1_500_000)
    return [(frame, luma_planes(_bicubic(frame.planes.y))) for frame in frames]


@pytest.mark.parametrize("shift", [(0, 0), (1, 1), (3, 2)])
def test_with_the_bitstreams_motion_flicker_falls_by_a_quarter_without_a_search(
    picture: Plane, shift: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = _moved_clip(picture, shift)
    stabiliser = Stabiliser(Stabilise.LITE)
    monkeypatch.setattr(stabiliser, "_motion", _no_search)
    calm = [
        stabiliser.apply(frame.planes.y, hr, pts=frame.pts, motion=frame.motion).y
        for frame, hr in clip
    ]
    assert shift_flicker(calm, shift) < 0.75 * shift_flicker([hr.y for _, hr in clip], shift)


def test_motion_that_leads_to_another_picture_is_not_used(picture: Plane) -> None:
    """As after a frame that was left out between."""
    (first, hr), _, (third, hr_third) = _moved_clip(picture, (3, 2))[1:4]
    assert third.motion is not None
    searched, told = Stabiliser(Stabilise.LITE), Stabiliser(Stabilise.LITE)
    for stabiliser in (searched, told):
        stabiliser.apply(first.planes.y, hr, pts=first.pts)
    expected = searched.apply(third.planes.y, hr_third, pts=third.pts)
    found = told.apply(third.planes.y, hr_third, pts=third.pts, motion=third.motion)
    assert np.array_equal(found.y, expected.y)


def test_history_ends_where_the_motion_is_wrong(picture: Plane) -> None:
    """Vectors into another picture, as an encoder with several references writes, are found out."""
    (first, hr), (second, hr_second) = _moved_clip(picture, (0, 0))[1:3]
    assert second.motion is not None
    vectors = second.motion.vectors.copy()
    vectors["motion_x"] = 4 * 24
    stabiliser = Stabiliser(Stabilise.LITE)
    stabiliser.apply(first.planes.y, hr, pts=first.pts)
    wrong = Motion(vectors, first.pts)
    out = stabiliser.apply(second.planes.y, hr_second, pts=second.pts, motion=wrong)
    assert psnr(out.y, hr_second.y) > 45


def _no_search(*_: Any, **__: Any) -> Any:
    raise AssertionError("searched for motion that the bitstream tells")


def _pair(hr: Plane) -> tuple[Plane, Planes]:
    return area_half(luma_planes(hr)).y, luma_planes(hr)


def _noisy_coded_clip(picture: Plane, shift: tuple[int, int]) -> list[Plane]:
    rng = np.random.default_rng(1)
    clip = []
    for t in range(14):
        moved = np.ascontiguousarray(np.roll(picture, (shift[1] * t, shift[0] * t), (0, 1)))
        half = area_half(luma_planes(moved)).y
        clip.append(luma_planes(_u8(half + rng.normal(0, 1.0, half.shape))))
    return [planes.y for planes in code_clip(clip, Coding(bitrate_bps=1_500_000))]


def _bicubic(lr: Plane) -> Plane:
    height, width = lr.shape
    large = cv2.resize(lr, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
    return cast(Plane, large)


def _padded_rows(plane: Plane) -> Plane:
    height, width = plane.shape
    wide = np.zeros((height, width + 13), np.uint8)
    wide[:, :width] = plane
    return wide[:, :width]


def _spread(a: Plane, b: Plane) -> float:
    return float((a.astype(np.float32) - b).std())


def _u8(values: Any) -> Plane:
    return cast(Plane, np.clip(np.rint(values), 0, 255).astype(np.uint8))
