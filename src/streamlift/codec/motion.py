"""Motion that the publisher's encoder found: from exported vectors to one vector a cell."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streamlift.frames import Frame, Motion, Size

if TYPE_CHECKING:
    import av

__all__ = ["CELL", "I16", "bridged", "chained", "motion_field", "motion_of", "motion_since"]

CELL = 8
"""Side of a cell in pixels. Blocks are 16x16 to 8x8 nearly always; of smaller ones one is taken."""

BLOCK = 16
_LONGEST_CHAIN = 4
"""Pictures; over more of them the vectors are no better than a search, and cost as much."""

_NONE = np.int32(-(1 << 31))

I16 = npt.NDArray[np.int16]
Mask = npt.NDArray[np.bool_]

_PAST = -1
_QUARTER = 4


def motion_of(frame: av.VideoFrame, follows: int | None) -> Motion | None:
    """The vectors that the decoder exported with a picture; `follows` is the one decoded before it.

    None where there are none: a keyframe, a codec that exports none, the first picture.
    """
    if follows is None:
        return None
    from av.sidedata.sidedata import Type

    side_data: Any = frame.side_data
    exported = side_data.get(Type.MOTION_VECTORS)
    return None if exported is None else Motion(exported.to_ndarray(), follows)


def motion_field(motion: Motion, size: Size) -> tuple[I16, Mask]:
    """Each cell's motion in quarter pixels (rows, columns, 2) as x, y, and whether it has one.

    The cell at p looks like the picture before at p + motion. Cells coded without prediction, or
    from a later picture, have none.
    """
    rows, columns = -(-size.height // BLOCK) * 2, -(-size.width // BLOCK) * 2
    raw: Any = motion.vectors
    usable = (raw["source"] == _PAST) & (raw["motion_scale"] == _QUARTER)
    if not usable.all():
        raw = raw[usable]
    # x and y in one number, so that a cell is written once.
    moves = (raw["motion_y"] << 16) | (raw["motion_x"] & 0xFFFF)
    wide, high = raw["w"], raw["h"]
    # Vectors name the centre of their block.
    left = (raw["dst_x"] - (wide >> 1)) >> 3
    first = ((raw["dst_y"] - (high >> 1)) >> 3).astype(np.intp) * columns + left
    wide, high = wide > CELL, high > CELL
    inside = (first >= 0) & (first < rows * columns)
    if not inside.all():
        first, moves, wide, high = (part[inside] for part in (first, moves, wide, high))
    # A guard behind the last row: nothing that a decoder says writes outside.
    cells = np.full((rows + 1) * columns + 2, _NONE, np.int32)
    cells[first] = moves
    cells[first[wide] + 1] = moves[wide]
    cells[first[high] + columns] = moves[high]
    both = wide & high
    cells[first[both] + columns + 1] = moves[both]
    cells = cells[: rows * columns].reshape(rows, columns)[
        : -(-size.height // CELL), : -(-size.width // CELL)
    ]
    known = cells != _NONE
    field = np.where(known, cells, 0).view(np.int16).reshape(*cells.shape, 2)
    return field, known


def bridged(frame: Frame, left_out: Frame) -> Frame:
    """The frame with the motion of the one before it as well, which is not shown.

    Over more pictures than a chain may have it stays as it is: its motion is searched for then.
    """
    motion, before = frame.motion, left_out.motion
    if motion is None or before is None or motion.follows != left_out.pts:
        return frame
    if _length(before) >= _LONGEST_CHAIN:
        return frame
    return replace(frame, motion=replace(motion, before=before))


def _length(motion: Motion) -> int:
    pictures = 1
    while motion.before is not None:
        motion, pictures = motion.before, pictures + 1
    return pictures


def motion_since(motion: Motion, pts: int | None, size: Size) -> tuple[I16, Mask] | None:
    """The field that leads to the picture of that pts, over those left out; None if none does."""
    fields = [motion_field(motion, size)]
    while motion.follows != pts:
        if motion.before is None or len(fields) == _LONGEST_CHAIN:
            return None
        motion = motion.before
        fields.append(motion_field(motion, size))
    whole = fields[0]
    for earlier in fields[1:]:
        whole = chained(earlier, whole)
    return whole


def chained(earlier: tuple[I16, Mask], later: tuple[I16, Mask]) -> tuple[I16, Mask]:
    """Two fields of successive pictures as one: from the later picture to the one before both."""
    field, known = later
    rows, columns = known.shape
    step = np.rint(field / (CELL * _QUARTER)).astype(np.int64)
    y = np.clip(np.arange(rows)[:, None] + step[..., 1], 0, rows - 1)
    x = np.clip(np.arange(columns)[None, :] + step[..., 0], 0, columns - 1)
    return field + earlier[0][y, x], known & earlier[1][y, x]
