"""The slate: the labelled still picture that viewers see while there is no picture to show."""

from __future__ import annotations

from functools import lru_cache
from typing import cast

import cv2
import numpy as np

from streamlift.frames import Colour, Frame, Plane, Planes, Size

__all__ = ["slate"]

_FONT = cv2.FONT_HERSHEY_DUPLEX
_TEXT = "waiting for the publisher"
_BACKGROUND, _INK, _LINE = 34, 200, 90
_MARGIN = 0.1
_SMALLER = 0.6


@lru_cache(maxsize=8)
def slate(size: Size, reason: str = "") -> Frame:
    """The slate at a low-resolution size, with `reason` in smaller letters below; made once for
    each size and reason. pts and arrival are 0."""
    luma = np.full((size.height, size.width), _BACKGROUND, np.uint8)
    height, width, scale = _write(luma, _TEXT, size.height // 2, 1.0)
    left, below = (size.width - width) // 2, size.height // 2 + height
    cv2.line(luma, (left, below), (size.width - left, below), _LINE, 1, cv2.LINE_AA)
    if reason:
        _write(luma, reason, below + height, scale * _SMALLER)
    grey = np.full(((size.height + 1) // 2, (size.width + 1) // 2), 128, np.uint8)
    planes = Planes(cast(Plane, luma), grey, grey)
    return Frame(pts=0, size=size, planes=planes, colour=Colour(), arrived_s=0.0)


def _write(luma: np.ndarray, text: str, middle: int, largest: float) -> tuple[int, int, float]:
    """One line in the middle of the picture's width; its height, width and scale."""
    # The font has letters of ASCII only.
    text = text.encode("ascii", "replace").decode()
    (width, height), _ = cv2.getTextSize(text, _FONT, 1.0, 1)
    scale = min(largest, luma.shape[1] * (1 - 2 * _MARGIN) / max(1, width))
    at = (int((luma.shape[1] - width * scale) / 2), middle + int(height * scale / 2))
    cv2.putText(luma, text, at, _FONT, scale, _INK, 1, cv2.LINE_AA)
    return int(height * scale), int(width * scale), scale
