"""The cheap way of the stabiliser: whole cells are moved, in bytes, and nothing is a float picture.

A cell is 8x8 low-resolution pixels. It moves by one vector in half high-resolution pixels: whole
ones are copied, a half is the mean of the two around it. How well a cell fits is read from the
difference that is needed anyway, at low resolution. Weights, ages and trust are bytes and come
out of tables. `stabilise` holds the rules; here is the arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamlift.codec.motion import CELL, I16
from streamlift.engine.stabilise_rules import MAX_AGE, Preset
from streamlift.frames import Plane

__all__ = ["CellHistory", "Comparison", "cells_of_flow", "contrast_of", "smoothed"]

I64 = npt.NDArray[np.int64]
S16 = npt.NDArray[np.int16]

QUARTER = 4
EIGHTH = 3
"""Differences are kept in eighths of a level, so that a residual of half a level can be told."""

AGE_UNIT = 8
_NEWER: Any = AGE_UNIT
_OLDEST: Any = MAX_AGE * AGE_UNIT
STRIP = 64
"""HR rows worked on at a time: what one pass writes, the next still finds in the cache."""

_ROUNDED = 1 << 10
_DOWN = EIGHTH + 8


@dataclass(slots=True, eq=False)
class CellHistory:
    """The last output of one luma plane, with an edge of one cell around it, and its ages."""

    last: Plane
    """(rows * cell + 2 cell, columns * cell + 2 cell) uint8; cell is 8 times the scale."""
    ages: Plane
    """The same at LR size: frames of history a pixel holds, in eighths."""
    scale: int
    spare: tuple[S16, S16, S16]
    """HR size; used again every frame, for a new picture costs its page faults."""

    @classmethod
    def start(cls, hr: Plane, scale: int) -> CellHistory:
        height, width = (side // scale for side in hr.shape)
        rows, columns = -(-height // CELL), -(-width // CELL)
        ages = np.zeros(((rows + 2) * CELL, (columns + 2) * CELL), np.uint8)
        last = np.empty((ages.shape[0] * scale, ages.shape[1] * scale), np.uint8)
        a, b, c = np.empty((3, *hr.shape), np.int16)
        history = cls(last, ages, scale, (a, b, c))
        history._picture(hr.shape)[:] = hr
        _extend(last, CELL * scale, hr.shape)
        return history

    def compare(self, hr: Plane, cells: I16) -> Comparison:
        """Move the last output by `cells` (rows, columns, 2; quarter LR pixels as x, y), less `hr`.

        The result lives until the next call.
        """
        halves = (cells.astype(np.int64) * self.scale + (self.scale & 1)) >> 1
        whole, odd = halves >> 1, halves & 1
        side = CELL * self.scale
        starts = _starts(self.last, whole, side)
        others = _starts(self.last, whole + odd, side) if odd.any() else None
        out = self.spare[0]
        height, width = hr.shape
        small = np.empty((height // self.scale, width // self.scale), np.int16)
        rows_at_once = max(1, STRIP // side)
        for row in range(0, len(starts), rows_at_once):
            part = slice(row, row + rows_at_once)
            strip = slice(row * side, (row + rows_at_once) * side)
            moved = _gathered(self.last, starts[part], side)
            if others is not None:
                other = _gathered(self.last, others[part], side)
                cv2.addWeighted(moved, 0.5, other, 0.5, 0, dst=moved)
            target = out[strip]
            moved = moved[: len(target), :width]
            cv2.subtract(moved, hr[strip], dst=target, dtype=cv2.CV_16S)
            np.left_shift(target, EIGHTH, out=target)
            means = small[row * CELL : (row + rows_at_once) * CELL]
            cv2.resize(target, means.shape[::-1], dst=means, interpolation=cv2.INTER_AREA)
        misses = cv2.convertScaleAbs(small)
        residual = cast(Plane, cv2.GaussianBlur(misses, (5, 5), 1.2, dst=misses))
        return Comparison(cells, out, small, residual)

    def blend(self, hr: Plane, found: Comparison, contrast: Any, preset: Preset) -> Plane:
        """The new output: `hr` and its share of the difference, less the local mean of that.

        `contrast` is LR size, in levels. Returns a view of what is remembered from now on.
        """
        height, width = found.residual.shape
        rows, columns = found.cells.shape[:2]
        still: Any = np.where(found.cells.any(-1), 0, 255).astype(np.uint8)
        still = cv2.resize(still, (columns * CELL, rows * CELL), interpolation=cv2.INTER_NEAREST)
        still = still[:height, :width]
        trust = _trust(found.residual, contrast, still, preset)
        weight = self._weight(trust, still, found.cells, preset)
        return self._mixed(hr, found, weight, preset.bound)

    def _weight(self, trust: Any, still: Any, cells: I16, preset: Preset) -> Any:
        """Ages move with their cells and grow where the match is trusted; 255 is all history."""
        height, width = trust.shape
        steps = np.rint(cells / QUARTER).astype(np.int64)
        moved = _gathered(self.ages, _starts(self.ages, steps, CELL), CELL)[:height, :width]
        older: Any = cv2.add(cv2.multiply(moved, trust, scale=1 / 255), _NEWER)
        age: Any = cv2.min(older, _OLDEST)
        self.ages[CELL : CELL + height, CELL : CELL + width] = age
        share = cv2.LUT(age, _share(preset.most))
        if preset.most_still != preset.most:
            cv2.copyTo(cv2.LUT(age, _share(preset.most_still)), still, share)
        return cv2.multiply(share, trust, dst=share, scale=1 / 255)

    def _mixed(self, hr: Plane, found: Comparison, weight: Any, bound: float) -> Plane:
        height, width = hr.shape
        most = round(bound * (1 << EIGHTH))
        difference, weights, means = self.spare
        cv2.resize(weight.astype(np.int16), (width, height), dst=weights)
        cv2.resize(cv2.blur(found.small, (5, 5)), (width, height), dst=means)
        # A new one each time: the one before may still be read by an encoder.
        self.last = np.empty_like(self.last)
        out = self._picture(hr.shape)
        for top in range(0, height, STRIP):
            strip = slice(top, top + STRIP)
            part = difference[strip]
            part -= means[strip]
            np.clip(part, -most, most, out=part)
            part *= weights[strip]
            part += _ROUNDED
            part >>= _DOWN
            cv2.add(hr[strip], part, dst=out[strip], dtype=cv2.CV_8U)
        _extend(self.last, CELL * self.scale, hr.shape)
        return out

    def _picture(self, shape: tuple[int, ...]) -> Plane:
        """The picture without its edge, as a view."""
        edge = CELL * self.scale
        return self.last[edge : edge + shape[0], edge : edge + shape[1]]


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """How the moved last output differs from a new picture.

    `difference` is HR size and `small` its mean at LR size, in eighths of a level; `residual` is
    how far the match misses, LR size, in eighths up to 32 levels.
    """

    cells: I16
    difference: S16
    small: S16
    residual: Plane

    @property
    def residual_mean(self) -> float:
        """In levels."""
        return float(cv2.mean(self.residual)[0]) / (1 << EIGHTH)


def cells_of_flow(flow: Any) -> I16:
    """A field of motion (H, W, 2) in pixels as one vector a cell, in quarter pixels."""
    height, width = flow.shape[:2]
    rows, columns = -(-height // CELL), -(-width // CELL)
    cells = cv2.resize(flow, (columns, rows), interpolation=cv2.INTER_AREA)
    return cast(I16, np.rint(np.asarray(cells) * QUARTER).astype(np.int16))


def smoothed(cells: I16) -> I16:
    """5x5 median: an encoder's vectors are the cheapest to write, not the true ones."""
    return cast(I16, np.stack([cv2.medianBlur(np.array(cells[..., i]), 5) for i in (0, 1)], -1))


def contrast_of(lr: Plane) -> Any:
    """Largest less smallest level of the 3x3 pixels around each, averaged over 5x5, uint8."""
    return cv2.blur(cv2.morphologyEx(lr, cv2.MORPH_GRADIENT, _AROUND), (5, 5))


_AROUND = np.ones((3, 3), np.uint8)


def _trust(residual: Plane, contrast: Any, still: Any, preset: Preset) -> Any:
    typical = preset.floor_share * float(np.median(residual[::4, ::4])) / (1 << EIGHTH)
    floor = min(max(typical, preset.least_floor), preset.most_floor)
    forgiven = cv2.subtract(residual, cv2.LUT(contrast, _forgiven(preset.contrast_share)))
    trust = cv2.LUT(forgiven, _trusted(floor), dst=forgiven)
    cv2.copyTo(cv2.LUT(residual, _trusted(preset.still_floor)), still, trust)
    return trust


def _starts(buffer: Plane, steps: I64, side: int) -> I64:
    """Index into the flat buffer of the first pixel of every cell's source (rows, columns).

    A cell far outside the picture is taken from its edge, which goes on as it is.
    """
    rows, columns = steps.shape[:2]
    height, width = buffer.shape
    y = np.arange(1, rows + 1)[:, None] * side + steps[..., 1]
    x = np.arange(1, columns + 1)[None, :] * side + steps[..., 0]
    return cast(I64, np.clip(y, 0, height - side) * width + np.clip(x, 0, width - side))


def _gathered(buffer: Plane, starts: I64, side: int) -> Plane:
    """Copy squares of `side` pixels beginning at `starts` (rows, columns) side by side.

    The buffer is seen as runs of `side` bytes that begin at every byte, so that NumPy copies a
    cell's row in one go: a seventh of the time of OpenCV's `remap`, and no map of the picture.
    """
    runs: Any = np.ndarray(
        (buffer.size - side + 1,), dtype=f"V{side}", buffer=buffer.data, strides=(1,)
    )
    lines = np.arange(side) * buffer.shape[1]
    taken = runs[starts[:, None, :] + lines[:, None]]
    rows, columns = starts.shape
    return cast(Plane, taken.view(np.uint8).reshape(rows * side, columns * side))


def _extend(buffer: Plane, edge: int, shape: tuple[int, ...]) -> None:
    """Repeat the picture's border outwards to the end of the buffer, in place."""
    bottom, right = edge + shape[0], edge + shape[1]
    rows = buffer[edge:bottom]
    rows[:, :edge] = rows[:, edge : edge + 1]
    rows[:, right:] = rows[:, right - 1 : right]
    buffer[:edge] = buffer[edge]
    buffer[bottom:] = buffer[bottom - 1]


def _trusted(floor: float) -> Plane:
    """Table from a residual in eighths of a level to trust, 255 for full."""
    excess = np.clip(np.arange(256) / (1 << EIGHTH) - floor, 0, None) * (0.5 / floor)
    return _bytes(255 * np.exp(-(excess * excess)))


def _forgiven(contrast_share: float) -> Plane:
    """Table from local contrast in levels to the residual that it excuses, in eighths."""
    excused = np.arange(256) * contrast_share * (1 << EIGHTH)
    return _bytes(np.minimum(excused, 255))


def _share(most: float) -> Plane:
    """Table from an age in eighths of a frame to the history's share, 255 for all of it."""
    ages = np.arange(256) / AGE_UNIT
    return _bytes(255 * np.minimum(1 - 1 / (ages + 1), most))


def _bytes(values: Any) -> Plane:
    return cast(Plane, np.rint(values).astype(np.uint8))
