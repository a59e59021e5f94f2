"""The H.264 level a size and rate need (ITU-T H.264, table A-1)."""

from __future__ import annotations

from streamlift.errors import UnsupportedSize
from streamlift.frames import Size
from streamlift.sizes import MOST_MACROBLOCKS, macroblocks

__all__ = ["h264_level"]

# (level, most macroblocks a second, most macroblocks a picture)
_LEVELS = (
    ("3.0", 40_500, 1_620),
    ("3.1", 108_000, 3_600),
    ("3.2", 216_000, 5_120),
    ("4.0", 245_760, 8_192),
    ("4.2", 522_240, 8_704),
    ("5.0", 589_824, 22_080),
    ("5.1", 983_040, MOST_MACROBLOCKS),
    ("5.2", 2_073_600, MOST_MACROBLOCKS),
)


def h264_level(size: Size, fps: float) -> str:
    """The lowest level that allows `size` at `fps`, such as "3.2" for 1024x1024 up to 50 fps.

    A rate beyond all levels gets the highest: it is measured of a publisher's timestamps, which
    may say anything. Raises UnsupportedSize when no level allows the size.
    """
    needed = macroblocks(size)
    for level, most_per_second, most_per_picture in _LEVELS:
        if needed <= most_per_picture and needed * fps <= most_per_second:
            return level
    highest, _, most_per_picture = _LEVELS[-1]
    if needed <= most_per_picture:
        return highest
    raise UnsupportedSize(
        f"no H.264 level up to {highest} allows {size}",
        found=str(size),
        expected=f"at most {most_per_picture} macroblocks of 16x16",
    )
