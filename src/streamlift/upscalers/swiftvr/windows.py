"""Attention windows: which tokens attend to each other in plain and in shifted blocks.

A window spans all latent frames of a chunk and `window` tokens high and wide. Windows may overlap;
then each token's result is taken from one of them, its owner. All tables depend on the grid only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

__all__ = ["Axis", "Seam", "Windows", "shifted_axis", "tables", "window_starts"]


class Seam(StrEnum):
    """What is done about an axis of exactly two windows (1024 pixels).

    There the published rule shifts nothing, so no window crosses the middle of the picture and its
    halves are restored apart. EXACT leaves it so. BRIDGE keeps the middle window in shifted blocks.
    CANVAS makes the picture a little larger, where the rule does shift, and crops it again.
    """

    EXACT = "exact"
    CANVAS = "canvas"
    BRIDGE = "bridge"


@dataclass(frozen=True, slots=True)
class Axis:
    """Windows along one axis: where each begins, how long all are, which owns each token."""

    starts: tuple[int, ...]
    length: int
    owners: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """How to gather tokens into windows, and to take each token's result out again.

    count: windows. gather: (count * tokens a window,) index of each place's token, None if tokens
    lie in this order already. owner: (tokens,) the place whose result is a token's, None likewise.
    """

    count: int
    gather: Tensor | None
    owner: Tensor | None


def window_starts(size: int, window: int, *, shifted: bool) -> list[int]:
    """Where windows begin along an axis of `size` tokens, by the published rule."""
    if size <= window:
        return [0]
    shift = window // 2 if shifted else 0
    every = range(-(-size // window) + 2)
    starts = sorted({min(max(k * window - shift, 0), size - window) for k in every})
    # An inner window between neighbours that already touch would only repeat their work.
    needless = {
        start
        for before, start, after in zip(starts, starts[1:], starts[2:], strict=False)
        if after <= before + window
    }
    return [start for start in starts if start not in needless]


def plain_axis(size: int, window: int) -> Axis:
    """A token belongs to the first window that contains it."""
    starts = window_starts(size, window, shifted=False)
    return _axis(size, window, starts, first=True)


def shifted_axis(size: int, window: int, seam: Seam) -> Axis:
    """A token belongs to the last window that contains it, but for the bridge's middle one."""
    if seam is Seam.BRIDGE and size == 2 * window and window > 1:
        half = window // 2
        owners = [0] * half + [1] * window + [2] * (window - half)
        return Axis((0, half, window), window, tuple(owners))
    return _axis(size, window, window_starts(size, window, shifted=True), first=False)


def tables(latents: int, rows: Axis, columns: Axis) -> tuple[Tensor, Tensor]:
    """gather (windows, tokens a window) and owner (tokens,), both int64.

    Tokens are numbered (t, h, w), windows row by row.
    """
    height, width = len(rows.owners), len(columns.owners)
    numbers = torch.arange(latents * height * width).reshape(latents, height, width)
    gather = torch.stack(
        [
            numbers[:, y : y + rows.length, x : x + columns.length].flatten()
            for y in rows.starts
            for x in columns.starts
        ]
    )
    row, column = torch.tensor(rows.owners), torch.tensor(columns.owners)
    owner = row[:, None] * len(columns.starts) + column
    inside_row = torch.arange(height) - torch.tensor(rows.starts)[row]
    inside_column = torch.arange(width) - torch.tensor(columns.starts)[column]
    frame = torch.arange(latents)[:, None, None] * rows.length
    inside = (frame + inside_row[:, None]) * columns.length + inside_column
    return gather, (owner * gather.shape[1] + inside).flatten()


def _axis(size: int, window: int, starts: Sequence[int], *, first: bool) -> Axis:
    length = min(size, window)
    order = list(enumerate(starts)) if first else list(enumerate(starts))[::-1]
    owners = [
        next(number for number, start in order if start <= token < start + length)
        for token in range(size)
    ]
    return Axis(tuple(starts), length, tuple(owners))
