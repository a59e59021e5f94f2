"""H.264 levels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlift.codec import h264_level
from streamlift.errors import UnsupportedSize
from streamlift.frames import Size


@pytest.mark.parametrize(
    ("size", "fps", "level"),
    [
        (Size(1024, 1024), 25, "3.2"),
        (Size(1024, 1024), 50, "3.2"),
        (Size(1024, 1024), 60, "4.0"),
        (Size(1280, 720), 30, "3.1"),
        (Size(1920, 1080), 30, "4.0"),
        (Size(2560, 2560), 25, "5.1"),
        (Size(128, 128), 25, "3.0"),
        (Size(128, 128), 90_000, "5.2"),
        (Size(2560, 2560), 120, "5.2"),
    ],
)
def test_known_sizes_and_rates(size: Size, fps: float, level: str) -> None:
    assert h264_level(size, fps) == level


@given(st.integers(16, 2560), st.integers(16, 2560), st.floats(1, 60))
def test_more_pixels_never_need_a_lower_level(width: int, height: int, fps: float) -> None:
    small, large = Size(width, height), Size(width + 64, height + 64)
    try:
        needed = float(h264_level(large, fps))
    except UnsupportedSize:
        return
    assert float(h264_level(small, fps)) <= needed


def test_a_size_beyond_all_levels_is_refused() -> None:
    with pytest.raises(UnsupportedSize, match="8192x8192"):
        h264_level(Size(8192, 8192), 60)
