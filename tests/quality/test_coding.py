"""The baseline coder: as many pictures as went in, in order, at about the asked rate."""

from __future__ import annotations

import numpy as np
import pytest

from streamlift.errors import MediaError
from streamlift.frames import Codec, Planes
from streamlift.quality import psnr
from streamlift.quality.coding import Coding, area_half, code_clip, luma_planes
from streamlift.quality.synthetic import synthetic_clip


@pytest.fixture(scope="module")
def clip() -> list[Planes]:
    return [luma_planes(y) for y in synthetic_clip("leaves", side=128, frames=10)]


@pytest.mark.parametrize("codec", list(Codec))
def test_every_picture_comes_back_in_order(clip: list[Planes], codec: Codec) -> None:
    coded = code_clip(clip, Coding(bitrate_bps=6_000_000, codec=codec))
    assert len(coded) == len(clip)
    for index, planes in enumerate(coded):
        scores = [psnr(planes.y, other.y) for other in clip]
        assert int(np.argmax(scores)) == index


def test_a_lower_rate_is_worse(clip: list[Planes]) -> None:
    high, low = (code_clip(clip, Coding(bitrate_bps=rate)) for rate in (6_000_000, 800_000))
    assert psnr(high[-1].y, clip[-1].y) > psnr(low[-1].y, clip[-1].y) + 1


def test_constant_quality_works(clip: list[Planes]) -> None:
    good, bad = (code_clip(clip, Coding(crf=crf)) for crf in (16, 40))
    assert psnr(good[-1].y, clip[-1].y) > psnr(bad[-1].y, clip[-1].y)


def test_colour_survives(clip: list[Planes]) -> None:
    red = Planes(clip[0].y, np.full((64, 64), 90, np.uint8), np.full((64, 64), 200, np.uint8))
    coded = code_clip([red] * 3, Coding(crf=10))
    assert abs(int(coded[-1].u[30, 30]) - 90) <= 2
    assert abs(int(coded[-1].v[30, 30]) - 200) <= 2


@pytest.mark.parametrize("values", [{}, {"bitrate_bps": 1_000_000, "crf": 20}])
def test_a_coding_is_a_rate_or_a_quality(values: dict[str, int]) -> None:
    with pytest.raises(MediaError, match="exactly one"):
        Coding(**values)  # type: ignore[arg-type]


def test_halving_takes_two_by_two_means() -> None:
    y = np.array([[0, 4, 8, 8], [4, 8, 8, 8], [1, 1, 0, 0], [1, 1, 0, 0]], np.uint8)
    assert area_half(luma_planes(y)).y.tolist() == [[4, 8], [1, 0]]
