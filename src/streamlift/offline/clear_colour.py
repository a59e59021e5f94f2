"""The one colour that a grey or RGB PNG calls transparent, which OpenCV leaves aside."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["with_clear_colour"]

_GREY, _RGB = 0, 2


def with_clear_colour(pixels: npt.NDArray[Any], png: bytes) -> npt.NDArray[Any]:
    """(H, W, 1 or 3) with alpha behind if the file has a tRNS chunk (PNG 11.3.2.1), else as is."""
    if len(png) < 33 or pixels.shape[2] not in (1, 3):
        return pixels
    depth, colour_type = png[24], png[25]
    key = _key(png)
    channels = {_GREY: 1, _RGB: 3}.get(colour_type)
    if key is None or channels is None or len(key) < 2 * channels or pixels.shape[2] != channels:
        return pixels
    # Samples of fewer bits are spread over all 8 when they are decoded.
    spread = 255 // ((1 << depth) - 1) if depth < 8 else 1
    clear = np.array(struct.unpack(f">{channels}H", key[: 2 * channels])) * spread
    opaque = np.iinfo(pixels.dtype).max
    alpha = np.where((pixels == clear).all(-1, keepdims=True), 0, opaque)
    return np.concatenate([pixels, alpha.astype(pixels.dtype)], -1)


def _key(png: bytes) -> bytes | None:
    """What the tRNS chunk holds; it stands before the picture's data."""
    at = 8
    while at + 8 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        name = png[at + 4 : at + 8]
        if name == b"tRNS":
            return png[at + 8 : at + 8 + length]
        if name == b"IDAT":
            return None
        at += 12 + length
    return None
