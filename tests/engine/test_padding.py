"""Padding to a model's multiple, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlift.engine.padding import crop_planes, pad_planes, padded_size
from streamlift.frames import Planes, Size

sides = st.integers(1, 200).map(lambda n: 2 * n)


@given(sides, sides, st.integers(1, 64))
def test_the_padded_size_is_the_least_even_multiple(width: int, height: int, multiple: int) -> None:
    size, padded = Size(width, height), padded_size(Size(width, height), multiple)
    for side, more in ((size.width, padded.width), (size.height, padded.height)):
        assert more % multiple == 0
        assert more % 2 == 0
        assert side <= more < side + 2 * multiple


@given(st.integers(1, 40).map(lambda n: 2 * n), st.integers(1, 40).map(lambda n: 2 * n))
def test_cropping_undoes_padding(width: int, height: int) -> None:
    planes = _planes(width, height)
    padded = pad_planes(planes, padded_size(planes.size, 32))
    back = crop_planes(padded, planes.size)
    assert all(np.array_equal(getattr(back, c), getattr(planes, c)) for c in "yuv")


def test_the_edge_is_repeated() -> None:
    planes = _planes(6, 4)
    padded = pad_planes(planes, Size(16, 8))
    assert padded.size == Size(16, 8)
    assert np.array_equal(padded.y[:4, 6:], np.repeat(planes.y[:, 5:], 10, axis=1))
    assert np.array_equal(padded.y[4:], np.repeat(padded.y[3:4], 4, axis=0))
    assert np.array_equal(padded.u[2:], np.repeat(padded.u[1:2], 2, axis=0))


@pytest.mark.parametrize("operation", [pad_planes, crop_planes])
def test_what_fits_already_is_not_copied(operation: object) -> None:
    planes = _planes(16, 16)
    assert operation(planes, Size(16, 16)) is planes  # type: ignore[operator]


def test_a_crop_is_a_view() -> None:
    planes = _planes(16, 16)
    assert crop_planes(planes, Size(8, 8)).y.base is planes.y


def _planes(width: int, height: int) -> Planes:
    chance = np.random.default_rng(width * 1000 + height)
    half = ((height + 1) // 2, (width + 1) // 2)
    return Planes(
        chance.integers(0, 256, (height, width), dtype=np.uint8),
        chance.integers(0, 256, half, dtype=np.uint8),
        chance.integers(0, 256, half, dtype=np.uint8),
    )
