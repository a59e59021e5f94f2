"""Resampling of still pictures in OpenCV's arithmetic, without OpenCV."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["enlarge_linear", "resize_lanczos4"]

_TAPS = 8
_BITS = 11  # of the fixed-point weights that OpenCV uses for 8 bit pictures

Array = npt.NDArray[Any]


def resize_lanczos4(picture: Array, width: int, height: int) -> Array:
    """Resize (H, W) or (H, W, C), uint8 or uint16, to (height, width), edges replicated.

    Same pixels as `cv2.resize(..., INTER_LANCZOS4)`, within one level: an 8 tap kernel that
    does not widen when shrinking, half-pixel centres, the horizontal pass first.
    """
    fixed = picture.dtype == np.uint8
    columns, column_weights = _taps(picture.shape[1], width, fixed)
    rows, row_weights = _taps(picture.shape[0], height, fixed)
    work: Array = picture.astype(np.int64 if fixed else np.float64)
    work = _apply(work, columns, column_weights, axis=1)
    work = _apply(work, rows, row_weights, axis=0)
    if fixed:
        work = (work + (1 << (2 * _BITS - 1))) >> (2 * _BITS)
    limits = np.iinfo(picture.dtype)
    return np.rint(work).clip(limits.min, limits.max).astype(picture.dtype)


def enlarge_linear(plane: Array, scale: int) -> Array:
    """Enlarge (H, W) float32 by a whole factor, bit by bit as OpenCV's INTER_LINEAR does.

    One multiplication a pass: exact halves are frequent here, and how they are reached decides
    which way they are rounded later.
    """
    for axis in (1, 0):
        length = plane.shape[axis]
        centre = (np.arange(length * scale) + 0.5) / scale - 0.5
        first = np.floor(centre).astype(np.intp)
        shape = [1, 1]
        shape[axis] = -1
        share = (centre - first).astype(np.float32).reshape(shape)
        before = plane.take(first.clip(0, length - 1), axis=axis)
        after = plane.take((first + 1).clip(0, length - 1), axis=axis)
        plane = before + (after - before) * share
    return plane


def _taps(old: int, new: int, fixed: bool) -> tuple[Array, Array]:
    """Sample numbers and weights, both (8, new)."""
    centre = (np.arange(new) + 0.5) * (old / new) - 0.5
    first = np.floor(centre) - 3
    sample = first + np.arange(_TAPS)[:, None]
    distance = centre - sample
    weight = np.sinc(distance) * np.sinc(distance / 4)
    weight /= weight.sum(axis=0)
    if fixed:
        weight = np.rint(weight * (1 << _BITS)).astype(np.int64)
    return sample.clip(0, old - 1).astype(np.intp), weight


def _apply(picture: Array, sample: Array, weight: Array, axis: int) -> Array:
    shape = [1] * picture.ndim
    shape[axis] = -1
    terms = (
        picture.take(numbers, axis=axis) * weights.reshape(shape)
        for numbers, weights in zip(sample, weight, strict=True)
    )
    total: Array = np.sum(list(terms), axis=0)
    return total
