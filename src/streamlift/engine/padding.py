"""Padding a picture to the multiple a model needs, and cropping the result back."""

from __future__ import annotations

import numpy as np

from streamlift.frames import Plane, Planes, Size

__all__ = ["crop_planes", "pad_planes", "padded_size"]


def padded_size(size: Size, multiple: int) -> Size:
    """`size` rounded up to the multiple; always even, since chroma is halved."""
    unit = multiple if multiple % 2 == 0 else multiple * 2
    return Size(-(-size.width // unit) * unit, -(-size.height // unit) * unit)


def pad_planes(planes: Planes, size: Size) -> Planes:
    """Replicate the right and bottom edge until the picture has `size` (even)."""
    if planes.size == size:
        return planes
    chroma = (size.height // 2, size.width // 2)
    return Planes(
        _pad(planes.y, (size.height, size.width)), _pad(planes.u, chroma), _pad(planes.v, chroma)
    )


def crop_planes(planes: Planes, size: Size) -> Planes:
    """The top left `size` of a picture, as views."""
    if planes.size == size:
        return planes
    height, width = (size.height + 1) // 2, (size.width + 1) // 2
    return Planes(
        planes.y[: size.height, : size.width],
        planes.u[:height, :width],
        planes.v[:height, :width],
    )


def _pad(plane: Plane, shape: tuple[int, int]) -> Plane:
    height, width = plane.shape
    return np.pad(plane, ((0, shape[0] - height), (0, shape[1] - width)), mode="edge")
