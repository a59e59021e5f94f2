"""SRVGGNetCompact, the plain convolutional network of Real-ESRGAN's light checkpoints.

From xinntao/Real-ESRGAN, release v0.2.5.0 ("Real-ESRGAN compact"): a row of 3x3 convolutions at
low resolution, pixel shuffle, and the nearest-neighbour enlargement added. Parameter names are
those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Activation", "SRVGGConfig", "SRVGGNetCompact", "animevideov3", "general_x4v3"]


class Activation(StrEnum):
    """What follows each convolution but the last. Only PRELU leaves a trace in a checkpoint."""

    PRELU = "prelu"
    RELU = "relu"
    LEAKY_RELU = "leakyrelu"


@dataclass(frozen=True, slots=True)
class SRVGGConfig:
    """Sizes of one net; `convs` counts the inner convolutions (first and last come on top)."""

    scale: int
    convs: int
    features: int = 64
    channels: int = 3
    activation: Activation = Activation.PRELU

    @property
    def unshuffle(self) -> int:
        """Any size will do."""
        return 1


def animevideov3() -> SRVGGConfig:
    """realesr-animevideov3: 621,424 parameters."""
    return SRVGGConfig(scale=4, convs=16)


def general_x4v3() -> SRVGGConfig:
    """realesr-general-x4v3 and realesr-general-wdn-x4v3: 1,213,296 parameters each."""
    return SRVGGConfig(scale=4, convs=32)


class SRVGGNetCompact(nn.Module):
    """(n, 3, H, W) RGB in [0, 1] -> (n, 3, scale*H, scale*W), about [0, 1], not clamped."""

    def __init__(self, config: SRVGGConfig) -> None:
        super().__init__()
        self.config = config
        # One flat list: the checkpoints number convolutions and activations together.
        self.body = nn.ModuleList()
        inputs = config.channels
        for _ in range(config.convs + 1):
            self.body.append(nn.Conv2d(inputs, config.features, kernel_size=3, padding=1))
            self.body.append(_activation(config))
            inputs = config.features
        outputs = config.channels * config.scale**2
        self.body.append(nn.Conv2d(inputs, outputs, kernel_size=3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for layer in self.body:
            out = layer(out)
        out = F.pixel_shuffle(out, self.config.scale)
        return out + F.interpolate(x, scale_factor=float(self.config.scale), mode="nearest")


def _activation(config: SRVGGConfig) -> nn.Module:
    if config.activation is Activation.PRELU:
        return nn.PReLU(config.features)
    if config.activation is Activation.RELU:
        return nn.ReLU(inplace=True)
    return nn.LeakyReLU(0.1, inplace=True)
