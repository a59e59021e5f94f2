"""The values: they check themselves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from streamlift.errors import MediaError
from streamlift.frames import Codec, Planes, Rendition, Size


def test_a_size_prints_as_people_write_it() -> None:
    assert str(Size(512, 288)) == "512x288"


def test_a_size_scales_both_sides() -> None:
    assert Size(3, 5).times(4) == Size(12, 20)
    assert Size(3, 5).pixels == 15


@pytest.mark.parametrize(("width", "height"), [(64, 64), (65, 64), (64, 63), (1, 1)])
def test_planes_of_any_size_have_half_size_chroma_rounded_up(width: int, height: int) -> None:
    half = np.zeros(((height + 1) // 2, (width + 1) // 2), np.uint8)
    planes = Planes(np.zeros((height, width), np.uint8), half, half)
    assert planes.size == Size(width, height)


def test_planes_that_do_not_fit_together_are_refused() -> None:
    luma, chroma = np.zeros((64, 64), np.uint8), np.zeros((32, 32), np.uint8)
    with pytest.raises(MediaError) as caught:
        Planes(luma, chroma, chroma[:31])
    assert caught.value.expected == {"u": (32, 32), "v": (32, 32)}


def test_values_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Size(1, 2).width = 3  # type: ignore[misc]


def test_renditions_are_equal_by_value_so_that_one_encoder_serves_all() -> None:
    assert len({Rendition(Codec.H264, 6_000_000), Rendition(Codec.H264, 6_000_000)}) == 1
