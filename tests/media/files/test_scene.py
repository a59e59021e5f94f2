"""The demo's scene: photographs that are free, in motion, without a jump at the end of a round."""

from __future__ import annotations

from importlib.resources import files
from itertools import islice

import numpy as np
import pytest

from streamlift.frames import Planes, Size
from streamlift.media.files.scene import SCENE_SIZE, scene_pictures, scene_round
from streamlift.stamp import read_stamp

SMALL = Size(96, 64)
MOST_BYTES = 500_000


def change(one: Planes, other: Planes) -> float:
    return float(np.abs(one.y.astype(np.int16) - other.y).mean())


def test_a_round_moves_all_the_time_and_ends_where_it_began() -> None:
    pictures = list(scene_round(SMALL))
    steps = [change(a, b) for a, b in zip(pictures, [*pictures[1:], pictures[0]], strict=True)]
    assert len(pictures) == 750
    assert min(steps) > 0.02  # slow at a print, but never still
    assert steps[-1] <= max(steps[:-1])
    following = list(islice(scene_pictures(SMALL), 750, 753))
    assert all((a.y == b.y).all() for a, b in zip(following, pictures, strict=False))


@pytest.mark.parametrize("size", [SCENE_SIZE, SMALL, Size(640, 360)])
def test_pictures_have_the_size_asked_for_and_levels_of_video(size: Size) -> None:
    picture = next(scene_pictures(size))
    assert picture.size == size
    assert picture.u.shape == (size.height // 2, size.width // 2)
    assert picture.y.min() >= 16
    assert picture.y.max() <= 235
    assert float(picture.y.std()) > 20


def test_no_picture_passes_for_a_stamped_one() -> None:
    pictures = islice(scene_pictures(), 0, 750, 5)
    assert all(read_stamp(picture.y) is None for picture in pictures)


def test_every_photograph_is_small_and_says_where_it_is_from_and_that_it_is_free() -> None:
    folder = files("streamlift.media.files") / "photographs"
    sources = (folder / "SOURCES.md").read_text()
    photographs = [f for f in folder.iterdir() if f.name.endswith(".jpg")]
    lines = {line.split("`")[1]: line for line in sources.splitlines() if line.startswith("| `")}
    assert set(lines) == {f.name for f in photographs}
    assert all("public domain" in line or "CC0" in line for line in lines.values())
    assert sum(len(f.read_bytes()) for f in photographs) < MOST_BYTES
