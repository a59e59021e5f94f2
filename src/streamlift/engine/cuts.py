"""Scene cuts, as they show in the low-resolution luma."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streamlift.frames import Plane

__all__ = ["Cuts"]

_GRID = (16, 16)
"""Coarse, so that motion counts little and a cut a lot."""
_CUT_LEVELS = 24.0
"""Mean change of a cell that makes a cut, of 255."""


class Cuts:
    """Compares each picture with the one before."""

    def __init__(self) -> None:
        self._before: npt.NDArray[np.int16] | None = None

    def at(self, luma: Plane) -> bool:
        """Whether a scene begins with this picture; never with the first."""
        import cv2  # only models that restart at a cut need it

        cells = cv2.resize(luma, _GRID, interpolation=cv2.INTER_AREA).astype(np.int16)
        before, self._before = self._before, cells
        return before is not None and float(np.abs(cells - before).mean()) > _CUT_LEVELS
