"""Scene cuts: found where the picture changes as a whole, not where something moves."""

from __future__ import annotations

import numpy as np
from tests.clips import picture

from streamlift.engine.cuts import Cuts
from streamlift.frames import Size

SIZE = Size(128, 128)


def test_motion_is_no_cut() -> None:
    cuts = Cuts()
    assert not any(cuts.at(picture(SIZE, number).y) for number in range(30))


def test_another_scene_is_one_cut() -> None:
    cuts = Cuts()
    light = np.full((128, 128), 200, np.uint8)
    dark = np.full((128, 128), 40, np.uint8)
    assert [cuts.at(luma) for luma in (light, light, dark, dark, light)] == [
        False,
        False,
        True,
        False,
        True,
    ]


def test_another_size_compares_as_well() -> None:
    cuts = Cuts()
    assert not cuts.at(np.full((128, 128), 100, np.uint8))
    assert not cuts.at(np.full((64, 96), 100, np.uint8))
