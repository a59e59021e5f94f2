"""Motion from the bitstream: what the decoder exports, and the field of cells made of it."""

from __future__ import annotations

import numpy as np
import pytest
from tests.clips import TICKS
from tests.engine.frames import decoded

from streamlift.codec.motion import bridged, chained, motion_field, motion_since
from streamlift.frames import Codec, Motion, Planes, Size

SIZE = Size(128, 96)


def test_a_panned_picture_moves_by_its_shift_nearly_everywhere() -> None:
    frames = decoded(_panned((3, -2), frames=4))
    motion = frames[3].motion
    assert motion is not None
    field, known = motion_field(motion, SIZE)
    assert field.shape == (12, 16, 2)
    assert known.mean() > 0.7
    # The picture before lies to the left and below: quarter pixels, against the movement.
    assert np.median(field[known], 0).tolist() == [-12, 8]


def test_a_frame_names_the_picture_that_its_motion_leads_to() -> None:
    frames = decoded(_panned((1, 0), frames=4))
    assert frames[0].motion is None
    follows = [frame.motion and frame.motion.follows for frame in frames[1:]]
    assert follows == [0, TICKS, 2 * TICKS]


def test_vp8_tells_no_motion() -> None:
    assert {f.motion for f in decoded(_panned((1, 0), frames=3), codec=Codec.VP8)} == {None}


def test_blocks_of_every_shape_fill_the_cells_that_they_cover() -> None:
    raw = _vectors(
        [
            (16, 16, 8, 8, 4, 8),
            (16, 8, 24, 4, 1, 2),
            (8, 16, 36, 8, -3, -4),
            (8, 8, 44, 12, 5, 6),
            (4, 4, 2, 18, 7, 7),
        ]
    )
    field, known = motion_field(Motion(raw, 0), Size(48, 24))
    assert field[:2, :2].reshape(-1, 2).tolist() == [[4, 8]] * 4
    assert field[0, 2:4].tolist() == [[1, 2]] * 2
    assert field[:2, 4].tolist() == [[-3, -4]] * 2
    assert field[1, 5].tolist() == [5, 6]
    assert field[2, 0].tolist() == [7, 7]
    expected = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0]], bool)
    assert np.array_equal(known, expected)
    assert not field[~known].any()


def test_vectors_into_later_pictures_or_outside_are_left_out() -> None:
    raw = _vectors([(16, 16, 8, 8, 4, 8), (16, 16, 24, 8, 4, 8), (16, 16, 8, 3000, 4, 8)])
    raw["source"][1] = 1
    field, known = motion_field(Motion(raw, 0), Size(32, 32))
    assert known.sum() == 4
    assert known[:2, :2].all()
    assert field.any(-1).sum() == 4


def test_no_vectors_are_no_motion() -> None:
    field, known = motion_field(Motion(_vectors([]), 0), Size(32, 32))
    assert not field.any()
    assert not known.any()


def test_two_fields_in_a_row_are_one() -> None:
    """A cell that came from its right neighbour goes on as that one did."""
    later = (np.full((4, 4, 2), (32, 0), np.int16), np.ones((4, 4), bool))
    earlier = (np.zeros((4, 4, 2), np.int16), np.ones((4, 4), bool))
    earlier[0][:, 2] = (0, 16)
    earlier[1][:, 3] = False
    field, known = chained(earlier, later)
    assert field[0, 1].tolist() == [32, 16]
    assert field[0, 0].tolist() == [32, 0]
    assert known[0].tolist() == [True, True, False, False]


def test_over_a_frame_that_was_left_out_motion_leads_to_the_one_before() -> None:
    _, first, second, third, fourth = decoded(_panned((3, -2), frames=5))
    over_two = bridged(fourth, bridged(third, second))
    assert over_two.motion is not None
    found = motion_since(over_two.motion, first.pts, SIZE)
    assert found is not None
    field, known = found
    assert known.mean() > 0.4
    assert np.median(field[known], 0).tolist() == [-36, 24]
    assert motion_since(over_two.motion, first.pts - TICKS, SIZE) is None


def test_a_frame_that_does_not_follow_the_one_left_out_keeps_its_own_motion() -> None:
    _, second, _, fourth = decoded(_panned((3, -2), frames=4))
    assert bridged(fourth, second) is fourth
    assert fourth.motion is not None
    assert motion_since(fourth.motion, second.pts, SIZE) is None


@pytest.mark.parametrize("size", [Size(64, 64), Size(66, 70), Size(640, 360)])
def test_the_field_covers_pictures_of_any_size(size: Size) -> None:
    rng = np.random.default_rng(1)
    pictures = [_picture(rng.integers(90, 110, (size.height, size.width))) for _ in range(2)]
    motion = decoded(pictures)[1].motion
    assert motion is not None
    field, known = motion_field(motion, size)
    assert known.shape == (-(-size.height // 8), -(-size.width // 8))
    assert field.shape == (*known.shape, 2)


def _vectors(blocks: list[tuple[int, int, int, int, int, int]]) -> np.ndarray:
    """(w, h, dst_x, dst_y, motion_x, motion_y) in the decoder's format."""
    raw = np.zeros(
        len(blocks),
        [
            ("source", "<i4"),
            ("w", "u1"),
            ("h", "u1"),
            ("dst_x", "<i2"),
            ("dst_y", "<i2"),
            ("motion_x", "<i4"),
            ("motion_y", "<i4"),
            ("motion_scale", "<u2"),
        ],
    )
    raw["source"], raw["motion_scale"] = -1, 4
    for index, block in enumerate(blocks):
        for name, value in zip(
            ("w", "h", "dst_x", "dst_y", "motion_x", "motion_y"), block, strict=True
        ):
            raw[name][index] = value
    return raw


def _panned(shift: tuple[int, int], *, frames: int) -> list[Planes]:
    rng = np.random.default_rng(2)
    coarse = rng.integers(40, 200, (SIZE.height // 4, SIZE.width // 4)).repeat(4, 0).repeat(4, 1)
    texture = coarse + rng.integers(0, 20, coarse.shape)
    return [_picture(np.roll(texture, (shift[1] * t, shift[0] * t), (0, 1))) for t in range(frames)]


def _picture(luma: np.ndarray) -> Planes:
    grey = np.full((luma.shape[0] // 2, luma.shape[1] // 2), 128, np.uint8)
    return Planes(luma.astype(np.uint8), grey, grey)
