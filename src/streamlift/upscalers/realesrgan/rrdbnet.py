"""RRDBNet, the residual-in-residual dense network of ESRGAN and Real-ESRGAN.

Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks" (2018), section
3.1, and Wang et al., "Real-ESRGAN" (2021), section 3.4 (pixel-unshuffle for the x2 and x1 nets).
Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamlift.upscalers.convolution import (
    conv3x3,
    enlarging_conv,
    fold_enlargement,
    pack_taps,
)

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
        self._packed: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """In its defining form on a CPU, elsewhere as `forward_fused`."""
        if x.device.type != "cpu":
            return self.forward_fused(x)
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

    def forward_fused(self, x: Tensor) -> Tensor:
        """The same with one pass over memory a convolution.

        A dense block lives in one channels-last buffer: each convolution reads the channels that
        are there and writes its own behind them, slope and residuals included; enlargements are
        folded into the convolution that follows.
        """
        if self.config.unshuffle > 1:
            x = F.pixel_unshuffle(x, self.config.unshuffle)
        width, growth = self.config.features, self.config.growth
        # The first room's first channels stay as they are: they are added at the end.
        kept, *rooms = [_room(x, width + 4 * growth, 1) for _ in range(4)]
        first = self._conv("conv_first", x, kept[:, :width])
        for number in range(len(self.body)):
            begins = rooms[0] if number else kept
            outer = begins[:, :width]
            for part, room in enumerate((begins, *rooms[1:])):
                name = f"body.{number}.rdb{part + 1}.conv"
                for layer in range(4):
                    seen = width + layer * growth
                    target = room[:, seen : seen + growth]
                    self._conv(f"{name}{layer + 1}", room[:, :seen], target, slope=_SLOPE)
                entry = room[:, :width]
                # Pixel by pixel the last block's result may take the place of what it is added to.
                target = rooms[(part + 1) % 3][:, :width]
                ends = part == 2
                conv3x3(
                    room,
                    self._taps(f"{name}5"),
                    self._bias(f"{name}5"),
                    target,
                    residual=entry,
                    outer=outer if ends else None,
                    scales=[_RESIDUAL] * (2 if ends else 1),
                )
        x = self._conv("conv_body", rooms[0][:, :width], _room(first, width, 1), residual=first)
        for name in ("conv_up1", "conv_up2"):
            large = _room(x, width, 2)
            enlarging_conv(x, self._taps(name, fold_enlargement), self._bias(name), large, _SLOPE)
            x = large
        x = self._conv("conv_hr", x, _room(x, width, 1), slope=_SLOPE)
        return self._conv("conv_last", x, _room(x, self.config.channels, 1))

    def _conv(
        self,
        name: str,
        x: Tensor,
        out: Tensor,
        *,
        slope: float = 1.0,
        residual: Tensor | None = None,
    ) -> Tensor:
        conv3x3(x, self._taps(name), self._bias(name), out, slope=slope, residual=residual)
        return out

    def _taps(self, name: str, pack: Callable[[Tensor], Tensor] = pack_taps) -> Tensor:
        if name not in self._packed:
            self._packed[name] = pack(self.get_parameter(f"{name}.weight").detach())
        return self._packed[name]

    def _bias(self, name: str) -> Tensor:
        return self.get_parameter(f"{name}.bias")

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._packed = {}  # made of weights that are moved or rounded now
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]


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


def _room(x: Tensor, channels: int, scale: int) -> Tensor:
    """New memory for pictures of so many channels, `scale` times the size of x."""
    shape = (x.shape[0], channels, scale * x.shape[2], scale * x.shape[3])
    last = torch.channels_last
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=last)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
