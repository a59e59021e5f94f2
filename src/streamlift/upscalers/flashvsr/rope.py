"""Rotary position embedding over time, height and width, without a table that can run out.

Only differences of temporal positions matter, so they may grow for ever: the few temporal angles
of a chunk are computed from its index in float64, and the spatial ones once for each size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamlift.upscalers.flashvsr.config import WINDOW
from streamlift.upscalers.flashvsr.upload import upload
from streamlift.upscalers.flashvsr.windows import to_windows

__all__ = ["Rotation", "SpatialRope", "axis_angles", "rotate", "split_head"]

_BASE = 10000.0


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """Cosine and sine of each token's angles, (tokens, head_dim / 2), float32."""

    cos: Tensor
    sin: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class SpatialRope:
    """Height and width angles of one unit in window order, (unit tokens, pairs), and its grid."""

    cos: Tensor
    sin: Tensor
    head_dim: int
    windows: int

    @classmethod
    def of_grid(
        cls, height: int, width: int, head_dim: int, device: torch.device | str
    ) -> SpatialRope:
        """Angles for a grid of (height, width) tokens."""
        _, rows, columns = split_head(head_dim)
        by_row = axis_angles(range(height), rows)[None, :, None, :]
        by_column = axis_angles(range(width), columns)[None, None, :, :]
        grid = (WINDOW[0], height, width, -1)
        angles = to_windows(torch.cat((by_row.expand(grid), by_column.expand(grid)), -1))
        windows = angles.shape[0] // (WINDOW[0] * WINDOW[1] * WINDOW[2])
        return cls(
            angles.cos().float().to(device), angles.sin().float().to(device), head_dim, windows
        )

    def temporal(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the temporal angles, (frames, pairs), float32 on the device."""
        angles = axis_angles(positions, split_head(self.head_dim)[0])
        device = self.cos.device
        return upload(angles.cos().float(), device), upload(angles.sin().float(), device)

    def at(self, positions: Sequence[int]) -> Rotation:
        """The rotation of tokens in window order at these latent frames (an even number)."""
        cos, sin = self.temporal(positions)
        return Rotation(self._join(cos, self.cos), self._join(sin, self.sin))

    def _join(self, temporal: Tensor, spatial: Tensor) -> Tensor:
        t, y, x = WINDOW
        units = temporal.shape[0] // t
        by_token = temporal.reshape(units, 1, t, 1, -1).expand(-1, self.windows, -1, y * x, -1)
        by_token = by_token.reshape(units * spatial.shape[0], -1)
        return torch.cat((by_token, spatial.repeat(units, 1)), -1)


def split_head(head_dim: int) -> tuple[int, int, int]:
    """Head size given to time, height and width."""
    side = head_dim // 3
    return head_dim - 2 * side, side, side


def axis_angles(positions: Sequence[int], size: int) -> Tensor:
    """Angles of one axis, (positions, size / 2), float64: n * 10000 ** (-2j / size)."""
    frequencies = _BASE ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    return torch.tensor(list(positions), dtype=torch.float64)[:, None] * frequencies


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the pairs (2i, 2i + 1) of each head: (tokens, heads, head_dim), computed in float32."""
    wide = x if x.dtype is torch.float64 else x.float()
    real, imaginary = torch.unflatten(wide, -1, (-1, 2)).unbind(-1)
    cos, sin = rotation.cos[:, None], rotation.sin[:, None]
    turned = torch.stack((real * cos - imaginary * sin, real * sin + imaginary * cos), -1)
    return turned.flatten(-2).to(x.dtype)
