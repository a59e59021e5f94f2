"""Token order: attention blocks of 2 x 8 x 8 tokens, laid out one after the other.

Everything in the DiT but attention works token by token, so tokens are put into window order once
at its entrance and taken out once at its exit; keys and values stay in that order in the cache.
A *unit* is two latent frames: one window high in time, n = (h / 8) * (w / 8) windows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streamlift.upscalers.flashvsr.config import WINDOW

__all__ = ["from_windows", "local_mask", "to_windows", "windows_per_unit"]


def to_windows(tokens: Tensor) -> Tensor:
    """(f, h, w, D) -> (f * h * w, D): units, then window rows, columns, then 2 x 8 x 8 tokens."""
    frames, height, width, dim = tokens.shape
    t, y, x = WINDOW
    split = tokens.reshape(frames // t, t, height // y, y, width // x, x, dim)
    return split.permute(0, 2, 4, 1, 3, 5, 6).reshape(-1, dim)


def from_windows(tokens: Tensor, frames: int, height: int, width: int) -> Tensor:
    """(f * h * w, D) in window order -> (f, h, w, D)."""
    t, y, x = WINDOW
    split = tokens.reshape(frames // t, height // y, width // x, t, y, x, -1)
    return split.permute(0, 3, 1, 4, 2, 5, 6).reshape(frames, height, width, -1)


def windows_per_unit(height: int, width: int) -> int:
    """Windows in a grid of (height, width) tokens."""
    return (height // WINDOW[1]) * (width // WINDOW[2])


def local_mask(rows: int, columns: int, local_range: int) -> Tensor:
    """(n, n) bool, row = query window: which windows of any unit may be attended.

    A query at (r, c) sees rows r - R // 2 .. r - R // 2 + R - 1 and columns alike; the range is
    not shifted at the borders.
    """
    seen_rows = _within(rows, local_range)
    seen_columns = _within(columns, local_range)
    both = seen_rows[:, None, :, None] & seen_columns[None, :, None, :]
    return both.reshape(rows * columns, rows * columns)


def _within(count: int, local_range: int) -> Tensor:
    query = torch.arange(count)[:, None]
    key = torch.arange(count)[None, :]
    first = query - local_range // 2
    return (key >= first) & (key <= first + local_range - 1)
