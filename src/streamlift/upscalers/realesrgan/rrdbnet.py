"""RRDBNet, the residual-in-residual dense network of ESRGAN and Real-ESRGAN.

Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks" (2018), section
3.1, and Wang et al., "Real-ESRGAN" (2021), section 3.4 (pixel-unshuffle for the x2 and x1 nets).
Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["RRDBNet", "RRDBNetConfig", "x2plus", "x4plus", "x4plus_anime_6b"]

_SLOPE = 0.2  # of every leaky ReLU
_RESIDUAL = 0.2  # share of a block's result that is added to its input


@dataclass(frozen=True, slots=True)
class RRDBNetConfig:
    """Sizes of one net. scale: 1, 2 or 4; blocks: RRDBs; features, growth: channels."""

    scale: int
    blocks: int = 23
    features: int = 64
    growth: int = 32
    channels: int = 3

    @property
    def unshuffle(self) -> int:
        """The input is folded by this factor first, so that the two x2 stages give `scale`."""
        return 4 // self.scale


def x2plus() -> RRDBNetConfig:
    """RealESRGAN_x2plus: 16,703,171 parameters."""
    return RRDBNetConfig(scale=2)


def x4plus() -> RRDBNetConfig:
    """RealESRGAN_x4plus: 16,697,987 parameters."""
    return RRDBNetConfig(scale=4)


def x4plus_anime_6b() -> RRDBNetConfig:
    """RealESRGAN_x4plus_anime_6B: 4,467,779 parameters."""
    return RRDBNetConfig(scale=4, blocks=6)


class RRDBNet(nn.Module):
    """(n, 3, H, W) RGB in [0, 1] -> (n, 3, scale*H, scale*W), about [0, 1], not clamped.

    H and W must divide by `config.unshuffle`.
    """

    def __init__(self, config: RRDBNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.features
        self.conv_first = _conv(config.channels * config.unshuffle**2, width)
        self.body = nn.Sequential(*(RRDB(width, config.growth) for _ in range(config.blocks)))
        self.conv_body = _conv(width, width)
        self.conv_up1 = _conv(width, width)
        self.conv_up2 = _conv(width, width)
        self.conv_hr = _conv(width, width)
        self.conv_last = _conv(width, config.channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.config.unshuffle > 1:
            x = F.pixel_unshuffle(x, self.config.unshuffle)  # (n, 3*u*u, H/u, W/u)
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for conv in (self.conv_up1, self.conv_up2):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = F.leaky_relu(conv(x), _SLOPE, inplace=True)
        x = F.leaky_relu(self.conv_hr(x), _SLOPE, inplace=True)
        out: Tensor = self.conv_last(x)
        return out


class RRDB(nn.Module):
    """Three dense blocks with a residual around them; shape is kept."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(features, growth)
        self.rdb2 = ResidualDenseBlock(features, growth)
        self.rdb3 = ResidualDenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return inner * _RESIDUAL + x


class ResidualDenseBlock(nn.Module):
    """Five convolutions, each seeing the input and all results before it; shape is kept."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1 = _conv(features, growth)
        self.conv2 = _conv(features + growth, growth)
        self.conv3 = _conv(features + 2 * growth, growth)
        self.conv4 = _conv(features + 3 * growth, growth)
        self.conv5 = _conv(features + 4 * growth, features)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, F.leaky_relu(conv(seen), _SLOPE, inplace=True)), dim=1)
        inner: Tensor = self.conv5(seen)
        return inner * _RESIDUAL + x


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
