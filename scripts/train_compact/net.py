"""The trainable form of the `compact` network; parallel branches fold into plain convolutions.

Design after SESR and ECB (arXiv:2103.09404, ACM MM 2021 10.1145/3474085.3475291): linear branches
train better than one kernel and cost nothing once folded. Here they are folded before every
convolution, in training too, so that a step costs the same as a plain network's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "TIERS",
    "WEIGHT_STEPS",
    "Calibration",
    "CompactNet",
    "PlainConv",
    "Tier",
    "bicubic_kernel",
]

SCALE = 2
BLOCK = 2
"""Pixels are gathered 2x2 into channels: the same arithmetic costs half the time at half size."""

LEVELS = 255.0

WEIGHT_STEPS = 63
"""Steps of an 8-bit graph's kernel either way: 7 bits. A processor without VNNI adds two products
in 16 bits, and 2 x 255 x 63 fits there, so that every processor computes the same."""

OUT_CHANNELS = (SCALE * BLOCK) ** 2


@dataclass(frozen=True, slots=True)
class Tier:
    """Width and number of hidden layers."""

    channels: int
    hidden: int


TIERS = {"xs": Tier(16, 2), "s": Tier(32, 2), "m": Tier(32, 4)}


@dataclass(frozen=True, slots=True)
class Calibration:
    """Step of each hidden activation (uint8 from 0) and of the tail (uint8 around 128, in levels)
    in the 8-bit graph."""

    hidden: tuple[float, ...]
    tail: float


@dataclass(frozen=True, slots=True)
class PlainConv:
    """A folded convolution: kernel (out, in, 3, 3) and bias (out,), float32."""

    kernel: Tensor
    bias: Tensor


class FoldedConv(nn.Module):
    """conv3x3 + conv1x1 + identity, all linear, applied as one kernel.

    A fourth branch, 1x1 to twice the channels and then 3x3, was tried: with Adam its product of
    two kernels moved so far in a step that every ReLU died at a rate of 2e-3.
    """

    def __init__(self, inputs: int, outputs: int, *, gain: float, identity: bool = False) -> None:
        super().__init__()
        spread = gain * (2 / (9 * inputs)) ** 0.5
        self.direct = nn.Parameter(torch.randn(outputs, inputs, 3, 3) * spread * 0.7)
        self.point = nn.Parameter(torch.randn(outputs, inputs, 1, 1) * spread * 0.7)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.identity = identity

    def folded(self) -> PlainConv:
        kernel = self.direct + functional.pad(self.point, (1, 1, 1, 1))
        if self.identity:
            eye = torch.eye(self.bias.numel(), device=kernel.device)[:, :, None, None]
            kernel = kernel + functional.pad(eye, (1, 1, 1, 1))
        return PlainConv(kernel, self.bias)

    def forward(self, x: Tensor, *, padding: int = 1, rounded: bool = False) -> Tensor:
        conv = self.folded()
        if rounded:
            reach = conv.kernel.detach().abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-8)
            conv = PlainConv(
                _rounded(conv.kernel, reach / WEIGHT_STEPS, -WEIGHT_STEPS, WEIGHT_STEPS), conv.bias
            )
        kernel = conv.kernel.contiguous(memory_format=torch.channels_last)
        return functional.conv2d(x, kernel, conv.bias, padding=padding)


class CompactNet(nn.Module):
    """Luma x2: (B, 1, H, W) in [0, 1], even sides -> (B, 1, 2H, 2W), not clipped."""

    def __init__(self, tier: Tier) -> None:
        super().__init__()
        self.head = FoldedConv(BLOCK**2, tier.channels, gain=1.0)
        self.body = nn.ModuleList(
            FoldedConv(tier.channels, tier.channels, gain=0.5, identity=True)
            for _ in range(tier.hidden)
        )
        self.tail = FoldedConv(tier.channels, OUT_CHANNELS, gain=0.02)
        self.skip = nn.Parameter(bicubic_kernel())

    def forward(self, lr: Tensor, calibration: Calibration | None = None) -> Tensor:
        """With a calibration as the 8-bit graph computes it, for training that allows for it."""
        # The picture goes on beyond its border as its edge, as in `upscalers/compact`.
        edged = functional.pad(lr, (BLOCK,) * 4, mode="replicate")
        x = functional.pixel_unshuffle(edged, BLOCK)  # (B, 4, H/2 + 2, W/2 + 2)
        with torch.autocast(x.device.type, enabled=False):
            base = functional.conv2d(x, self.skip)  # (B, 16, H/2, W/2)
        steps = calibration.hidden if calibration else (None,) * (1 + len(self.body))
        rounded = calibration is not None
        x = x.contiguous(memory_format=torch.channels_last)
        features = functional.relu(self.head(x, padding=0, rounded=rounded))
        for layer, step in zip(self.body, steps, strict=False):
            features = functional.relu(layer(_activation(features, step), rounded=rounded))
        correction = self.tail(_activation(features, steps[-1]), rounded=rounded).float()
        if calibration is not None:
            correction = _rounded(correction, calibration.tail / LEVELS, -128, 127)
        return functional.pixel_shuffle(base + correction, SCALE * BLOCK)

    def plain(self) -> list[PlainConv]:
        """The folded convolutions in order: head, hidden layers, tail."""
        return [layer.folded() for layer in (self.head, *self._layers(), self.tail)]

    def _layers(self) -> list[FoldedConv]:
        return [layer for layer in self.body if isinstance(layer, FoldedConv)]


def _activation(features: Tensor, step: float | None) -> Tensor:
    return features if step is None else _rounded(features, step, 0, 255)


def _rounded(values: Tensor, step: Tensor | float, low: int, high: int) -> Tensor:
    """To whole steps; the gradient passes as if nothing had been rounded, but not what was cut."""
    within = torch.maximum(
        torch.minimum(values, step * torch.tensor(high)), step * torch.tensor(low)
    )
    whole = torch.round(within / step) * step
    return within + (whole - within).detach()


def bicubic_kernel() -> Tensor:
    """Bicubic x2 (a = -0.75, as OpenCV's) as a 3x3 convolution on gathered pixels: (16, 4, 3, 3).

    Output row k of a 2x2 block lies at LR position (k + 0.5) / 2 - 0.5 from the block's first row;
    its four taps lie within rows -2 to 3, which are the three gathered rows.
    """
    rows = torch.tensor(
        [[_cubic((k + 0.5) / 2 - 0.5 - tap) for tap in range(-2, 4)] for k in range(4)]
    )
    taps = torch.einsum("ay,bx->abyx", rows, rows)  # (4, 4, 6, 6)
    gathered = taps.reshape(OUT_CHANNELS, 3, BLOCK, 3, BLOCK).permute(0, 2, 4, 1, 3)
    return gathered.reshape(OUT_CHANNELS, BLOCK**2, 3, 3).contiguous()


def _cubic(x: float, a: float = -0.75) -> float:
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0
