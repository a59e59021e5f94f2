"""RGB arrays to the planes that encoders take, and back: for those who have no torch."""

from __future__ import annotations

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace

from streamlift.codec.decoder import picture_of
from streamlift.errors import MediaError
from streamlift.frames import Colour, Planes

__all__ = ["Rgb", "planes_from_rgb", "rgb_from_planes", "rgb_levels"]

Rgb = npt.NDArray[np.uint8]
"""(H, W, 3), red first."""

_MATRICES = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709}


def rgb_levels(picture: npt.ArrayLike) -> Rgb:
    """A picture as (H, W, 3) uint8 RGB: given so, or as floats from 0 to 1, which are rounded.

    Raises MediaError for another shape or type, odd sides, and floats that are no numbers.
    """
    given = np.asarray(picture)
    if given.ndim != 3 or given.shape[2] != 3 or given.shape[0] % 2 or given.shape[1] % 2:
        raise MediaError(
            "this is no picture that can be encoded",
            found=given.shape,
            expected="(height, width, 3), height and width even",
        )
    if given.dtype == np.uint8:
        return np.ascontiguousarray(given)
    if not np.issubdtype(given.dtype, np.floating):
        raise MediaError(
            "pixels of this type are not understood",
            found=str(given.dtype),
            expected="uint8, float",
        )
    levels = np.rint(given.astype(np.float32) * np.float32(255))
    if np.isnan(levels).any():
        raise MediaError("a picture holds what is no number", found="NaN", expected="0 to 1")
    made: Rgb = np.clip(levels, 0, 255).astype(np.uint8)
    return made


def planes_from_rgb(rgb: Rgb) -> Planes:
    """(H, W, 3) as I420 by ITU-R BT.601, limited range: what untagged video is taken for."""
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    made = frame.reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU601,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )
    return picture_of(made)


def rgb_from_planes(planes: Planes, colour: Colour) -> Rgb:
    """(H, W, 3) of an I420 picture with these tags."""
    packed = np.concatenate([plane.ravel() for plane in planes.each()])
    size = planes.size
    frame = av.VideoFrame.from_ndarray(
        packed.reshape(size.height * 3 // 2, size.width), format="yuv420p"
    )
    made = frame.reformat(
        format="rgb24",
        src_colorspace=_MATRICES.get(colour.matrix, Colorspace.ITU601),
        src_color_range=ColorRange.JPEG if colour.full_range else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    rgb = made.to_ndarray()
    assert rgb.dtype == np.uint8
    return rgb.astype(np.uint8, copy=False)
