"""All constants of one size of chunk: window tables, token order and rotary angles.

Only relative positions matter, as nothing is kept from chunk to chunk: so they always count from
zero and the tables never change. Where plain windows do not overlap, tokens are kept in their
order throughout and plain blocks gather nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamlift.upscalers.flashvsr.rope import axis_angles
from streamlift.upscalers.swiftvr.config import DitConfig
from streamlift.upscalers.swiftvr.windows import Seam, Windows, plain_axis, shifted_axis, tables

__all__ = ["Grid", "Turn", "split_head"]


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """Each token's angles: cosine and sine, (tokens, 1, head_dim / 2) float32, and as complex."""

    cos: Tensor
    sin: Tensor
    both: Tensor

    @classmethod
    def of(cls, angles: Tensor, device: torch.device | str) -> Turn:
        """angles: (tokens, head_dim / 2) float64."""
        cos, sin = (part.float()[:, None].to(device) for part in (angles.cos(), angles.sin()))
        return cls(cos, sin, torch.complex(cos, sin))


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """For a chunk of (latents, height, width) tokens.

    order: (tokens,) which (t, h, w) token stands at each place, None for that very order;
    back: its inverse. turn: the rotations, in this order.
    """

    shape: tuple[int, int, int]
    order: Tensor | None
    back: Tensor | None
    plain: Windows
    shifted: Windows
    turn: Turn

    @classmethod
    def build(
        cls,
        config: DitConfig,
        shape: tuple[int, int, int],
        seam: Seam,
        device: torch.device | str,
    ) -> Grid:
        """The tables of one grid on the device."""
        latents, height, width = shape
        high, wide = config.window
        gather, owner = tables(latents, plain_axis(height, high), plain_axis(width, wide))
        rows, columns = shifted_axis(height, high, seam), shifted_axis(width, wide, seam)
        moved, moved_owner = tables(latents, rows, columns)
        tokens = latents * height * width
        angles = _angles(config.head_dim, shape)
        order = back = None
        count = gather.shape[0]
        plain = Windows(count, gather.flatten().to(device), owner.to(device))
        if gather.numel() == tokens:
            order = gather.flatten()
            back = torch.empty_like(order)
            back[order] = torch.arange(tokens)
            plain = Windows(count, None, None)
            angles = angles[order]
            moved, moved_owner = back[moved], moved_owner[order]
        if torch.equal(moved.flatten(), torch.arange(tokens)):
            shifted = Windows(moved.shape[0], None, None)
        else:
            shifted = Windows(moved.shape[0], moved.flatten().to(device), moved_owner.to(device))
        if order is not None and torch.equal(order, torch.arange(tokens)):
            order = back = None
        return cls(
            shape=shape,
            order=None if order is None else order.to(device),
            back=None if back is None else back.to(device),
            plain=plain,
            shifted=shifted,
            turn=Turn.of(angles, device),
        )


def split_head(head_dim: int) -> tuple[int, int, int]:
    """Head size given to time, height and width; each is even."""
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


def _angles(head_dim: int, shape: tuple[int, int, int]) -> Tensor:
    """(tokens, head_dim / 2) float64, tokens in (t, h, w) order."""
    t, y, x = (
        axis_angles(range(count), size)
        for count, size in zip(shape, split_head(head_dim), strict=True)
    )
    grid = (*shape, -1)
    parts = (
        t[:, None, None].expand(grid),
        y[None, :, None].expand(grid),
        x[None, None].expand(grid),
    )
    return torch.cat(parts, -1).flatten(0, 2)
