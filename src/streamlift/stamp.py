"""The pixel stamp: frame number and time drawn into a picture, to be read after any codec.

32 cells of 16x16 low-resolution pixels, row-major from the top left, W // 16 cells a row. The
first 16 cells hold the frame number, the next 16 the monotonic time in milliseconds, Gray-coded so
that one misread cell at a tick moves the time by little; most significant bit first, white is 1.
Cells are read at their centre in luma. Width and height must be at least 128.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamlift.errors import MediaError
from streamlift.frames import Plane

__all__ = ["CELL", "MODULUS", "Stamp", "draw_stamp", "elapsed_ms", "read_stamp"]

CELL = 16
MODULUS = 1 << 16
"""Frame number and milliseconds both wrap here."""
_CELLS = 32
_BLACK, _WHITE = 16, 235
_MIDDLE = (_BLACK + _WHITE) / 2
_LEAST_CONTRAST = 40
_SMALLEST = 128


@dataclass(frozen=True, slots=True)
class Stamp:
    """Frame number and monotonic milliseconds, both modulo 65536."""

    number: int
    ms: int


def draw_stamp(luma: Plane, number: int, now_s: float) -> None:
    """Draw into a low-resolution luma plane (H, W), in place. Raises MediaError below 128x128."""
    per_row = _cells_per_row(luma, scale=1)
    ms = int(now_s * 1000) % MODULUS
    bits = _to_bits(number % MODULUS) + _to_bits(ms ^ (ms >> 1))
    for index, bit in enumerate(bits):
        top, left = divmod(index, per_row)
        luma[top * CELL : (top + 1) * CELL, left * CELL : (left + 1) * CELL] = (
            _WHITE if bit else _BLACK
        )


def read_stamp(luma: Plane, *, scale: int = 1) -> Stamp | None:
    """Read from a luma plane (H, W) `scale` times the stamped size; None if there is no stamp.

    A cell that is neither clearly black nor clearly white means there is no stamp.
    """
    per_row = _cells_per_row(luma, scale)
    cell = CELL * scale
    bits = []
    for index in range(_CELLS):
        top, left = divmod(index, per_row)
        y, x = top * cell + cell // 2, left * cell + cell // 2
        level = float(np.mean(luma[y - scale : y + scale, x - scale : x + scale]))
        if abs(level - _MIDDLE) < _LEAST_CONTRAST:
            return None
        bits.append(level > _MIDDLE)
    return Stamp(number=_from_bits(bits[:16]), ms=_from_gray(_from_bits(bits[16:])))


def elapsed_ms(stamp: Stamp, now_s: float) -> float:
    """Milliseconds since the stamp was drawn; right for up to 65 s."""
    return (now_s * 1000 - stamp.ms) % MODULUS


def _cells_per_row(luma: Plane, scale: int) -> int:
    height, width = luma.shape
    if min(height, width) < _SMALLEST * scale:
        raise MediaError(
            "picture too small for a stamp",
            found=f"{width}x{height}",
            expected=f"at least {_SMALLEST * scale}x{_SMALLEST * scale}",
        )
    return int(width // (CELL * scale))


def _to_bits(value: int) -> list[int]:
    return [(value >> shift) & 1 for shift in range(15, -1, -1)]


def _from_bits(bits: list[bool]) -> int:
    value = 0
    for bit in bits:
        value = value << 1 | bit
    return value


def _from_gray(gray: int) -> int:
    value: int = gray
    while gray := gray >> 1:
        value ^= gray
    return value
