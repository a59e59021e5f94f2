"""The slate: the labelled still picture that viewers see while nobody publishes."""

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


@lru_cache(maxsize=8)
def slate(size: Size) -> Frame:
    """The slate at a low-resolution size; made once a size. pts and arrival are 0."""
    luma = np.full((size.height, size.width), _BACKGROUND, np.uint8)
    room = size.width * (1 - 2 * _MARGIN)
    (width, height), _ = cv2.getTextSize(_TEXT, _FONT, 1.0, 1)
    scale = min(1.0, room / width)
    at = (int((size.width - width * scale) / 2), int((size.height + height * scale) / 2))
    cv2.putText(luma, _TEXT, at, _FONT, scale, _INK, 1, cv2.LINE_AA)
    below = at[1] + int(height * scale)
    cv2.line(luma, (at[0], below), (size.width - at[0], below), _LINE, 1, cv2.LINE_AA)
    grey = np.full(((size.height + 1) // 2, (size.width + 1) // 2), 128, np.uint8)
    planes = Planes(cast(Plane, luma), grey, grey)
    return Frame(pts=0, size=size, planes=planes, colour=Colour(), arrived_s=0.0)
