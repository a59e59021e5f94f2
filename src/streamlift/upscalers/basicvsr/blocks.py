"""What both nets of the family are built of: residual trunks, and the way up to x4."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Enlarging", "Trunk", "leaky", "one_by_one"]


def leaky(x: Tensor) -> Tensor:
    """The family's activation, in place."""
    return F.leaky_relu(x, 0.1, inplace=True)


def one_by_one(clip: Tensor) -> list[Tensor]:
    """(t, c, H, W) as t views (1, c, H, W)."""
    return [frame[None] for frame in clip]


class Trunk(nn.Module):
    """A 3x3 convolution to `features` channels, then residual blocks without normalisation."""

    def __init__(self, inputs: int, features: int, blocks: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, features, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Sequential(*(_Block(features) for _ in range(blocks))),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.main(x)
        return out


class _Block(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.relu(self.conv1(x), inplace=True))
        return out


class _Shuffle(nn.Module):
    """Twice as large: four times the channels, then each four become 2x2 pixels."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.upsample_conv = nn.Conv2d(features, outputs * 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.upsample_conv(x), 2)


class Enlarging(nn.Module):
    """The last layers of both nets, which come under these names in the published files."""

    def __init__(self, features: int, tail: int) -> None:
        """`tail`: channels at the full size, 64 in the published nets."""
        super().__init__()
        self.upsample1 = _Shuffle(features, features)
        self.upsample2 = _Shuffle(features, tail)
        self.conv_hr = nn.Conv2d(tail, tail, 3, padding=1)
        self.conv_last = nn.Conv2d(tail, 3, 3, padding=1)

    def enlarge(self, features: Tensor, lr: Tensor) -> Tensor:
        """(1, c, H, W) and the picture (1, 3, H, W) -> (1, 3, 4H, 4W), not clamped."""
        x = leaky(self.upsample1(features))
        x = leaky(self.upsample2(x))
        x = leaky(self.conv_hr(x))
        x = self.conv_last(x)
        base = F.interpolate(lr, scale_factor=4.0, mode="bilinear", align_corners=False)
        return torch.add(x, base)
