"""Cheap checks of what a model gave back, before it is shown to anyone."""

from __future__ import annotations

from streamlift.errors import InvalidOutput
from streamlift.frames import Plane, Planes, Size

__all__ = ["check_output"]

_STRIDE = 16
_BLACK = 8
"""Below video black (16): a NaN cast to 8 bits ends up here, a dark scene does not."""
_CONTENT = 24


def check_output(lr_luma: Plane, hr: Planes, expected: Size) -> None:
    """Raise InvalidOutput for a wrong shape, or an all-black picture where there was none.

    A stream's own content must never look like a fault of the model.
    """
    if hr.size != expected:
        raise InvalidOutput(
            f"upscaler gave {hr.size}, expected {expected}",
            found=str(hr.size),
            expected=str(expected),
        )
    # Sparsely first, which costs nothing; then all of both, so that nothing lies between samples.
    if hr.y[::_STRIDE, ::_STRIDE].max() >= _BLACK or hr.y.max() >= _BLACK:
        return
    if lr_luma.mean() > _CONTENT:
        raise InvalidOutput("upscaler gave a black picture (NaN?)", found="black", expected="image")
