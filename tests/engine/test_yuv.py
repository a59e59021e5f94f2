"""Planes to RGB and back: known colours, round trips, odd sizes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streamlift.engine.yuv import (  # noqa: E402
    begin_download,
    pack_i420,
    planes_to_rgb,
    rgb_to_planes,
)
from streamlift.errors import MediaError  # noqa: E402
from streamlift.frames import Colour, Planes, Size  # noqa: E402

ALL_COLOURS = [
    Colour(matrix, full_range)
    for matrix in ("bt601", "bt709", "bt2020")
    for full_range in (False, True)
]


def flat(y: int, u: int, v: int, width: int = 8, height: int = 6) -> Planes:
    chroma = ((height + 1) // 2, (width + 1) // 2)
    return Planes(
        y=np.full((height, width), y, np.uint8),
        u=np.full(chroma, u, np.uint8),
        v=np.full(chroma, v, np.uint8),
    )


@pytest.mark.parametrize(
    ("colour", "rgb", "yuv"),
    [
        # 8-bit values of the 100 % colour bars as the recommendations' tables give them.
        (Colour("bt601"), (1.0, 1.0, 1.0), (235, 128, 128)),
        (Colour("bt601"), (0.0, 0.0, 0.0), (16, 128, 128)),
        (Colour("bt601"), (1.0, 0.0, 0.0), (81, 90, 240)),
        (Colour("bt601"), (0.0, 0.0, 1.0), (41, 240, 110)),
        (Colour("bt709"), (1.0, 0.0, 0.0), (63, 102, 240)),
        (Colour("bt709"), (0.0, 1.0, 0.0), (173, 42, 26)),
        (Colour("bt601", full_range=True), (1.0, 0.0, 0.0), (76, 85, 255)),
        (Colour("bt601", full_range=True), (1.0, 1.0, 1.0), (255, 128, 128)),
    ],
)
def test_a_known_colour_has_its_published_code_values(
    colour: Colour, rgb: tuple[float, float, float], yuv: tuple[int, int, int]
) -> None:
    picture = torch.tensor(rgb).view(1, 3, 1, 1).expand(1, 3, 4, 4)

    (planes,) = rgb_to_planes(picture, colour)

    assert (planes.y[0, 0], planes.u[0, 0], planes.v[0, 0]) == yuv
    back = planes_to_rgb(planes, colour)
    assert back[0, :, 0, 0].tolist() == pytest.approx(rgb, abs=0.015)


@pytest.mark.parametrize("colour", ALL_COLOURS)
def test_every_grey_survives_the_round_trip_exactly(colour: Colour) -> None:
    low, high = (0, 255) if colour.full_range else (16, 235)
    for level in range(low, high + 1, 7):
        (back,) = rgb_to_planes(planes_to_rgb(flat(level, 128, 128), colour), colour)
        assert int(back.y[0, 0]) == level
        assert int(back.u[0, 0]) == int(back.v[0, 0]) == 128


@pytest.mark.parametrize("colour", ALL_COLOURS)
def test_flat_colours_survive_the_round_trip_within_a_level(colour: Colour) -> None:
    for u in (100, 128, 150):
        for v in (100, 128, 150):
            planes = flat(120, u, v)
            (back,) = rgb_to_planes(planes_to_rgb(planes, colour), colour)
            for before, after in ((planes.y, back.y), (planes.u, back.u), (planes.v, back.v)):
                assert np.abs(before.astype(int) - after).max() <= 1


@pytest.mark.parametrize("colour", ALL_COLOURS)
def test_a_smooth_picture_survives_the_round_trip_within_two_levels(colour: Colour) -> None:
    height, width = 32, 48
    y, x = np.mgrid[0:height, 0:width]
    planes = Planes(
        y=(100 + x).astype(np.uint8),
        u=(118 + y[::2, ::2] // 2).astype(np.uint8),
        v=(118 + x[::2, ::2] // 2).astype(np.uint8),
    )

    (back,) = rgb_to_planes(planes_to_rgb(planes, colour), colour)

    for before, after in ((planes.y, back.y), (planes.u, back.u), (planes.v, back.v)):
        assert np.abs(before.astype(int) - after).max() <= 2


def test_chroma_is_sited_in_the_middle_of_its_block() -> None:
    planes = flat(128, 128, 128, width=16, height=16)
    planes.v[:, 4:] = 160

    red = planes_to_rgb(planes, Colour())[0, 0, 8]

    # An edge between chroma columns 3 and 4 lies between luma columns 7 and 8, halves mirrored.
    middle = (red[0] + red[-1]) / 2
    assert torch.allclose(red - middle, -(red.flip(0) - middle), atol=1e-6)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 6), (6, 7), (17, 13)])
def test_odd_sizes_keep_their_size(width: int, height: int) -> None:
    planes = flat(90, 110, 140, width, height)

    rgb = planes_to_rgb(planes, Colour())
    (back,) = rgb_to_planes(rgb, Colour())

    assert rgb.shape == (1, 3, height, width)
    assert back.size == Size(width, height)
    assert np.abs(back.v.astype(int) - 140).max() <= 1


def test_the_result_is_in_range_for_any_code_values() -> None:
    rng = np.random.default_rng(5)
    planes = Planes(
        y=rng.integers(0, 256, (12, 20), np.uint8),
        u=rng.integers(0, 256, (6, 10), np.uint8),
        v=rng.integers(0, 256, (6, 10), np.uint8),
    )

    rgb = planes_to_rgb(planes, Colour())

    assert float(rgb.min()) >= 0.0
    assert float(rgb.max()) <= 1.0


def test_half_precision_stays_within_a_level_of_float32() -> None:
    planes = flat(120, 100, 150)

    (back,) = rgb_to_planes(planes_to_rgb(planes, Colour(), dtype=torch.float16), Colour())

    assert np.abs(back.y.astype(int) - 120).max() <= 1


def test_planes_with_a_stride_and_without_write_permission_are_read() -> None:
    wide = np.full((6, 32), 200, np.uint8)
    wide.setflags(write=False)
    planes = Planes(y=wide[:, 4:12], u=wide[:3, :4], v=wide[:3, :4])

    assert planes_to_rgb(planes, Colour()).shape == (1, 3, 6, 8)


def test_several_pictures_come_back_in_order() -> None:
    rgb = torch.stack([torch.full((3, 4, 4), level) for level in (0.0, 0.5, 1.0)])

    planes = rgb_to_planes(rgb, Colour())

    assert [int(p.y[0, 0]) for p in planes] == [16, 126, 235]


def test_a_download_from_the_cpu_gives_every_picture() -> None:
    packed = pack_i420(torch.zeros(2, 3, 4, 6), Colour())

    download = begin_download(packed, Size(6, 4))

    assert packed.shape == (2, 4 * 6 + 2 * 2 * 3)
    assert [p.size for p in download.wait()] == [Size(6, 4), Size(6, 4)]


def test_an_unknown_matrix_is_named_with_the_known_ones() -> None:
    with pytest.raises(MediaError, match="ycgco") as caught:
        planes_to_rgb(flat(1, 2, 3), Colour("ycgco"))
    assert "bt709" in str(caught.value.expected)
