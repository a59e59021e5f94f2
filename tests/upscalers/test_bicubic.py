"""Bicubic enlargement."""

from __future__ import annotations

import numpy as np
import pytest
from tests.clips import picture

from streamlift.errors import ConfigError
from streamlift.frames import Size
from streamlift.upscalers import create_upscaler
from streamlift.upscalers.bicubic import Bicubic, enlarge_plane


@pytest.mark.parametrize("scale", [2, 4])
def test_a_flat_plane_stays_flat(scale: int) -> None:
    large = enlarge_plane(np.full((20, 30), 77, np.uint8), scale)
    assert large.shape == (20 * scale, 30 * scale)
    assert large.dtype == np.uint8
    assert set(large.ravel()) == {77}


def test_values_are_clipped_not_wrapped() -> None:
    edges = np.zeros((16, 16), np.uint8)
    edges[:, 8:] = 255
    large = enlarge_plane(edges, 2)
    assert large[:, :12].max() < 128 < large[:, 20:].min()


def test_a_ramp_stays_a_ramp_and_is_not_shifted() -> None:
    ramp = np.tile(np.arange(0, 240, 8, dtype=np.uint8), (30, 1))
    large = enlarge_plane(ramp, 2).astype(float)
    # Pixel centres: large pixel i lies at (i + 0.5) / 2 - 0.5 of the small one.
    expected = ((np.arange(60) + 0.5) / 2 - 0.5) * 8
    assert np.abs(large[10, 6:-6] - expected[6:-6]).max() <= 1


def test_it_is_opencvs_cubic_and_no_other() -> None:
    impulse = np.zeros((9, 9), np.uint8)
    impulse[4, 4] = 200
    row = enlarge_plane(impulse, 2)[8].astype(float)
    a = -0.75
    near, far = 0.25, 0.75

    def weight(x: float) -> float:
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a

    expected = 200 * weight(near) * np.array([weight(near), weight(far)])
    assert np.abs(row[8:6:-1][:1] - expected[:1]).max() <= 1
    assert abs(row[10] - expected[1]) <= 1


def test_all_three_planes_are_enlarged() -> None:
    session = Bicubic().open(Size(64, 48))
    (large,) = session.push(picture(Size(64, 48), 0, stamped=False))
    assert (large.y.shape, large.u.shape, large.v.shape) == ((96, 128), (48, 64), (48, 64))


@pytest.mark.parametrize("settings", [{"scale": 3}, {"scale": "2"}, {"sharpness": 1}])
def test_wrong_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="bicubic"):
        create_upscaler("bicubic", settings=settings)


def test_an_unknown_upscaler_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="bicubicc") as caught:
        create_upscaler("bicubicc", settings={})
    assert "bicubic" in caught.value.expected  # type: ignore[operator]
