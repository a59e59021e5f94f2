"""What a `compact` session spends on a frame; apart, for schedulers need no network."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Effort"]


class Effort(StrEnum):
    """How much a session spends on a frame; the engine lowers it when frames are dropped."""

    FULL = "full"
    SMALL = "small"
    BICUBIC = "bicubic"
