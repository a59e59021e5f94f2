"""Sampling a picture at other places than its own pixels: pixel coordinates for grid_sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["flow_warp", "pixel_grid", "sample_at"]


def pixel_grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column numbers, float32, shaped (H, 1) and (1, W)."""
    rows = torch.arange(height, device=device, dtype=torch.float32)
    columns = torch.arange(width, device=device, dtype=torch.float32)
    return rows[:, None], columns[None, :]


def sample_at(x: Tensor, rows: Tensor, columns: Tensor, *, border: bool = False) -> Tensor:
    """Bilinear samples of x (n, c, H, W) at float32 pixel coordinates (n, h, w).

    Outside the picture each of the four neighbours counts as zero by itself; with `border` the
    coordinate is moved to the edge instead. Computed in float32 whatever x is: between 512 and
    1024 half precision knows only every half pixel. Returns (n, c, h, w) in x's dtype.
    """
    height, width = x.shape[-2:]
    # Pixel centres at (2 p + 1) / size - 1: unlike the other convention this knows one pixel too.
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), dim=-1)
    sampled = F.grid_sample(
        x.float(),
        grid,
        mode="bilinear",
        padding_mode="border" if border else "zeros",
        align_corners=False,
    )
    return sampled.to(x.dtype)


def flow_warp(x: Tensor, flow: Tensor, *, border: bool = False) -> Tensor:
    """x (n, c, H, W) moved by flow (n, 2, H, W), in pixels, channel 0 across, channel 1 down."""
    rows, columns = pixel_grid(x.shape[-2], x.shape[-1], x.device)
    flow = flow.float()
    return sample_at(x, rows + flow[:, 1], columns + flow[:, 0], border=border)
