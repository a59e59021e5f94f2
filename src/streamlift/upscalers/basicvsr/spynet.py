"""SPyNet: optical flow from coarse to fine (Ranjan and Black, 2017), as the family uses it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamlift.upscalers.basicvsr.warp import flow_warp

__all__ = ["LEVELS", "WIDTHS", "SPyNet"]

WIDTHS = (32, 64, 32, 16)
"""Channels between the five convolutions of a level, in the published weights."""
LEVELS = 6
_UNIT = 2 ** (LEVELS - 1)


class SPyNet(nn.Module):
    """Flow between two pictures, always in float32: half precision cannot tell its pixels apart."""

    mean: Tensor
    std: Tensor

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(_Level(widths) for _ in range(LEVELS))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, here: Tensor, there: Tensor) -> Tensor:
        """Where each pixel of `here` lies in `there`; both (n, 3, H, W) RGB in [0, 1].

        Returns (n, 2, H, W) float32 in pixels, channel 0 across, channel 1 down.
        """
        height, width = here.shape[-2:]
        whole = (-(-height // _UNIT) * _UNIT, -(-width // _UNIT) * _UNIT)
        flow = self._flow(*(_resized(p.float(), whole) for p in (here, there)))
        flow = _resized(flow, (height, width))
        return flow * flow.new_tensor([width / whole[1], height / whole[0]]).view(1, 2, 1, 1)

    def _flow(self, here: Tensor, there: Tensor) -> Tensor:
        pyramids = [self._pyramid(picture) for picture in (here, there)]
        n, _, height, width = pyramids[0][-1].shape
        flow = here.new_zeros(n, 2, height, width)
        for number, level in enumerate(self.basic_module):
            small, other = (pyramid.pop() for pyramid in pyramids)
            if number:
                flow = 2 * F.interpolate(
                    flow, scale_factor=2.0, mode="bilinear", align_corners=True
                )
            moved = flow_warp(other, flow, border=True)
            flow = flow + level(torch.cat((small, moved, flow), dim=1))
        return flow

    def _pyramid(self, picture: Tensor) -> list[Tensor]:
        """Largest first."""
        levels = [(picture - self.mean) / self.std]
        for _ in range(LEVELS - 1):
            levels.append(F.avg_pool2d(levels[-1], 2))
        return levels


class _Level(nn.Module):
    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        channels = (8, *widths, 2)
        self.basic_module = nn.ModuleList(_Step(i, o) for i, o in pairwise(channels))

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.basic_module) - 1
        for number, step in enumerate(self.basic_module):
            x = step(x)
            if number < last:
                x = F.relu(x, inplace=True)
        return x


class _Step(nn.Module):
    """One convolution; a module of its own because the published names say so."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
