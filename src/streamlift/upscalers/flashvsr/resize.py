"""The enlargement before the network: bicubic with a = -0.5, as Pillow does it."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Resize", "enlarge"]


class Resize(StrEnum):
    """FLOAT keeps fractions of a level; PILLOW rounds to 8 bits as the reference scripts do."""

    FLOAT = "float"
    PILLOW = "pillow"


def enlarge(frames: Tensor, scale: int, kind: Resize = Resize.FLOAT) -> Tensor:
    """(n, 3, H, W) in [0, 1] -> (n, 3, scale * H, scale * W), clamped to [0, 1]."""
    if kind is Resize.PILLOW:
        levels = (frames * 255).round().clamp(0, 255).to(torch.uint8).cpu()
        return _bicubic(levels, scale).to(frames.device, frames.dtype) / 255
    return _bicubic(frames, scale).clamp(0, 1)


def _bicubic(frames: Tensor, scale: int) -> Tensor:
    # With antialias torch uses a = -0.5, without it -0.75; enlarging, there is nothing to smooth.
    return F.interpolate(
        frames, scale_factor=scale, mode="bicubic", align_corners=False, antialias=True
    )
