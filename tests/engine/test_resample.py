"""Another size: pictures keep their place and their levels, on the processor and by torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.clips import picture

from streamlift.codec.resample import Resampler
from streamlift.frames import Colour, Fit, Planes, Size
from streamlift.quality import psnr
from streamlift.sizes import Layout, placed_in

Way = Callable[[Planes, Layout, Colour], Planes]


def by_ffmpeg(planes: Planes, layout: Layout, colour: Colour) -> Planes:
    return Resampler().laid_out(planes, layout, colour)


def by_torch(planes: Planes, layout: Layout, colour: Colour) -> Planes:
    import torch

    from streamlift.engine.resample_torch import laid_out_levels
    from streamlift.engine.yuv import begin_download, join_levels

    y = torch.from_numpy(np.ascontiguousarray(planes.y, np.float32))[None]
    chroma = torch.from_numpy(np.stack((planes.u, planes.v)).astype(np.float32))[None]
    levels = laid_out_levels(y, chroma, layout, colour)
    (out,) = begin_download(join_levels(*levels), layout.out).wait()
    return out


WAYS = [
    pytest.param(by_ffmpeg, id="processor"),
    pytest.param(
        by_torch,
        id="torch",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("torch") is None, reason="torch is not installed"
        ),
    ),
]
sides = st.integers(8, 90).map(lambda half: 2 * half)


def even(size: Size, level: int, chroma: tuple[int, int] = (110, 140)) -> Planes:
    """All of one colour."""
    half = ((size.height + 1) // 2, (size.width + 1) // 2)
    y = np.full((size.height, size.width), level, np.uint8)
    return Planes(y, np.full(half, chroma[0], np.uint8), np.full(half, chroma[1], np.uint8))


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=50)
@given(
    source=st.builds(Size, sides, sides),
    out=st.builds(Size, sides, sides),
    fit=st.sampled_from(Fit),
)
def test_one_colour_stays_that_colour_and_bars_are_black(
    way: Way, source: Size, out: Size, fit: Fit
) -> None:
    layout = placed_in(source, out, fit)
    got = way(even(source, 180), layout, Colour())
    assert got.size == out
    place = layout.place
    inside = np.zeros((out.height, out.width), bool)
    bottom, right = place.top + place.size.height, place.left + place.size.width
    inside[place.top : bottom, place.left : right] = True
    assert set(np.unique(got.y[inside])) <= {179, 180, 181}, "rounded"
    assert set(np.unique(got.y[~inside])) <= {16}
    small = inside[::2, ::2]
    assert set(np.unique(got.u[small])) <= {109, 110, 111}
    assert set(np.unique(got.v[small])) <= {139, 140, 141}
    assert set(np.unique(got.u[~small])) | set(np.unique(got.v[~small])) <= {128}


@pytest.mark.parametrize("way", WAYS)
def test_bars_of_full_range_are_black_as_well(way: Way) -> None:
    layout = placed_in(Size(64, 64), Size(128, 64), Fit.CONTAIN)
    assert way(even(Size(64, 64), 180), layout, Colour(full_range=True)).y[0, 0] == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("out", [Size(180, 180), Size(256, 256), Size(270, 270), Size(400, 250)])
def test_nothing_is_shifted_neither_luma_nor_chroma(way: Way, out: Size) -> None:
    source = Size(256, 256)
    blob = _blob(256, 100.0, 140.0)
    small = cv2.resize(blob, (128, 128), interpolation=cv2.INTER_AREA)
    planes = Planes(_bytes(blob), _bytes(small), _bytes(small))
    got = way(planes, placed_in(source, out, Fit.STRETCH), Colour())
    across, down = out.width / 256, out.height / 256
    for plane, part in ((got.y, 1), (got.u, 2), (got.v, 2)):
        x, y = _centre(plane)
        # Pixel centres: what was in the middle of a picture is there still.
        assert (x + 0.5) * part == pytest.approx(100.5 * across, abs=0.12)
        assert (y + 0.5) * part == pytest.approx(140.5 * down, abs=0.12)


@pytest.mark.parametrize("way", WAYS)
def test_what_a_smaller_picture_cannot_hold_does_not_come_back_as_a_pattern(way: Way) -> None:
    """Lines of a pixel each, at 0.7 of the size: a filter that does not widen makes waves of it."""
    lines = np.tile(np.array([[60, 200]], np.uint8), (256, 128))
    half = np.full((128, 128), 128, np.uint8)
    layout = placed_in(Size(256, 256), Size(180, 180), Fit.CONTAIN)
    got = way(Planes(lines, half, half), layout, Colour())
    inner = got.y[8:-8, 8:-8].astype(float)
    assert inner.std() < 0.35 * lines.std()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("out", [Size(720, 720), Size(1080, 1080), Size(1280, 720)])
def test_both_ways_give_the_same_picture_to_the_eye(out: Size) -> None:
    source = Size(512, 512)
    shown = picture(source, 1, stamped=False)
    shown = Planes(cv2.GaussianBlur(shown.y, (0, 0), 0.8), shown.u, shown.v)  # type: ignore[arg-type]
    layout = placed_in(source, out, Fit.CONTAIN)
    one, other = (way(shown, layout, Colour()) for way in (by_ffmpeg, by_torch))
    assert psnr(one.y, other.y) > 42


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@given(old=st.integers(4, 200), new=st.integers(4, 200))
def test_weights_of_a_side_sum_to_one_and_are_its_mirror_image(old: int, new: int) -> None:
    from streamlift.engine.resample_torch import lanczos

    weights = lanczos(old, new)
    assert weights.shape == (new, old)
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(weights, weights[::-1, ::-1], atol=1e-5)
    if old == new:
        assert np.allclose(weights, np.eye(old), atol=1e-6)


def _blob(side: int, x: float, y: float) -> Any:
    rows, columns = np.mgrid[:side, :side]
    return 40 + 160 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 12.0**2))


def _bytes(values: Any) -> Any:
    return np.rint(np.asarray(values)).astype(np.uint8)


def _centre(plane: Any) -> tuple[float, float]:
    mass = np.clip(plane.astype(float) - 60, 0, None)
    rows, columns = np.mgrid[: plane.shape[0], : plane.shape[1]]
    return float((mass * columns).sum() / mass.sum()), float((mass * rows).sum() / mass.sum())
