"""The Wan2.1 VAE decoder of the Full pipeline: latents to frames, one latent at a time.

Larger and slower than TCDecoder and blind to the low-quality video. Each causal convolution
carries its last two input steps from latent to latent; that memory belongs to the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamlift.upscalers.flashvsr.config import LATENT_STRIDE, VaeConfig

__all__ = ["WanDecoder", "WanVae"]

_MULTIPLIERS = (4, 4, 4, 2, 1)
_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


class WanVae(nn.Module):
    """The decoding half of `Wan2.1_VAE.pth`: `conv2` and `decoder.*`."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.conv2 = nn.Conv3d(config.latent_channels, config.latent_channels, 1)
        self.decoder = WanDecoder(config)

    def new_memory(
        self, height: int, width: int, device: torch.device | str, dtype: torch.dtype
    ) -> list[Tensor]:
        """What a stream carries at a latent grid of (height, width): two steps a convolution."""
        convs = list(self.decoder.causal_convs())
        return [
            torch.zeros(
                conv.carried_channels,
                2,
                (tile.bottom - tile.top) * stride,
                (tile.right - tile.left) * stride,
                device=device,
                dtype=dtype,
            )
            for tile in self._tiles(height, width)
            for conv, stride in convs
        ]

    def forward(self, latents: Tensor, memory: list[Tensor], *, first: bool) -> Tensor:
        """One latent, (1, 16, h, w) -> (1 if first else 4, 3, 8h, 8w), about [-1, 1], unclamped.

        Updates `memory` (zeros at first) in place.
        """
        mean = latents.new_tensor(_MEAN)[:, None, None]
        std = latents.new_tensor(_STD)[:, None, None]
        x = self.conv2((latents * std + mean).transpose(0, 1))  # (16, 1, h, w)
        height, width = x.shape[2:]
        tiles, carried = self._tiles(height, width), iter(memory)
        decoded = [
            self.decoder(x[..., t.top : t.bottom, t.left : t.right], carried, first).transpose(0, 1)
            for t in tiles
        ]
        if len(tiles) == 1:
            return decoded[0]  # type: ignore[no-any-return]
        return _blend_tiles(decoded, tiles, height, width, self._overlap)

    def _tiles(self, height: int, width: int) -> list[_Tile]:
        if self.config.tile is None:
            return [_Tile(0, 0, height, width)]
        return _plan_tiles(height, width, self.config.tile, self.config.stride)

    @property
    def _overlap(self) -> tuple[int, int]:
        tile, stride = self.config.tile or self.config.stride, self.config.stride
        return tile[0] - stride[0], tile[1] - stride[1]


class WanDecoder(nn.Module):
    """Names and indices are the checkpoint's. All tensors are (C, T, h, w), batch-free."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [config.base * multiplier for multiplier in _MULTIPLIERS]
        self.conv1 = _CausalConv(config.latent_channels, widths[0], (3, 3, 3))
        self.middle = nn.Sequential(
            _Residual(widths[0], widths[0]), _Attention(widths[0]), _Residual(widths[0], widths[0])
        )
        self.upsamples = nn.Sequential(*_stages(widths))
        self.head = nn.Sequential(
            _Norm((widths[-1], 1, 1, 1)), nn.SiLU(), _CausalConv(widths[-1], 3, (3, 3, 3))
        )

    def forward(self, x: Tensor, memory: Iterator[Tensor], first: bool) -> Tensor:
        x = self.conv1(x, memory)
        for layer in (*self.middle, *self.upsamples):
            if isinstance(layer, _Residual):
                x = layer(x, memory)
            elif isinstance(layer, _Upsample):
                x = layer(x, memory, first)
            else:
                x = layer(x)
        norm, activation, conv = self.head
        return conv(activation(norm(x)), memory)  # type: ignore[no-any-return]

    def causal_convs(self) -> Iterator[tuple[_CausalConv, int]]:
        """Each causal convolution in the order it runs, with its enlargement over the latents."""
        stride = 1
        for module in self.modules():
            if isinstance(module, _CausalConv):
                yield module, stride
            elif isinstance(module, nn.Upsample):
                stride *= 2


class _CausalConv(nn.Conv3d):
    """Zero padding in space; in time the two steps before, from memory."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int, int]) -> None:
        padding = (0, kernel[1] // 2, kernel[2] // 2)
        super().__init__(inputs, outputs, kernel, padding=padding)
        self.carried_channels = inputs

    def forward(self, x: Tensor, memory: Iterator[Tensor]) -> Tensor:  # type: ignore[override]
        carried = next(memory)
        x = torch.cat((carried, x), 1)
        carried.copy_(x[:, -2:])
        return super().forward(x)


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _Norm((inputs, 1, 1, 1)),
            nn.SiLU(),
            _CausalConv(inputs, outputs, (3, 3, 3)),
            _Norm((outputs, 1, 1, 1)),
            nn.SiLU(),
            nn.Identity(),  # dropout in training
            _CausalConv(outputs, outputs, (3, 3, 3)),
        )
        self.shortcut = nn.Conv3d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, memory: Iterator[Tensor]) -> Tensor:
        h = x
        for layer in self.residual:
            h = layer(h, memory) if isinstance(layer, _CausalConv) else layer(h)
        return h + self.shortcut(x)  # type: ignore[no-any-return]


class _Attention(nn.Module):
    """One head over all positions of a frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _Norm((width, 1, 1))
        self.to_qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.transpose(0, 1)  # (T, C, h, w)
        qkv = self.to_qkv(self.norm(frames)).flatten(2).transpose(1, 2)
        q, k, v = qkv.chunk(3, -1)
        mixed = torch.unflatten(
            F.scaled_dot_product_attention(q, k, v).transpose(1, 2), 2, x.shape[2:]
        )
        return x + self.proj(mixed).transpose(0, 1)  # type: ignore[no-any-return]


class _Upsample(nn.Module):
    """x2 in space, and where `in_time`, two frames from each but the stream's first latent."""

    def __init__(self, width: int, *, in_time: bool) -> None:
        super().__init__()
        if in_time:
            self.time_conv = _CausalConv(width, 2 * width, (3, 1, 1))
        self.in_time = in_time
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(width, width // 2, 3, padding=1),
        )

    def forward(self, x: Tensor, memory: Iterator[Tensor], first: bool) -> Tensor:
        if self.in_time and first:
            next(memory)  # the first latent never enters the time convolution, nor its memory
        elif self.in_time:
            halves = torch.unflatten(self.time_conv(x, memory), 0, (2, -1))  # earlier frame first
            x = halves.permute(1, 2, 0, 3, 4).flatten(1, 2)
        return self.resample(x.transpose(0, 1)).transpose(0, 1)  # type: ignore[no-any-return]


class _Norm(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        channel_axis = 0 if self.gamma.ndim == 4 else 1
        gain: Tensor = self.gamma * self.gamma.shape[0] ** 0.5
        return F.normalize(x, dim=channel_axis, eps=1e-12) * gain


@dataclass(frozen=True, slots=True)
class _Tile:
    """A rectangle of latents, half open."""

    top: int
    left: int
    bottom: int
    right: int


def _plan_tiles(
    height: int, width: int, size: tuple[int, int], stride: tuple[int, int]
) -> list[_Tile]:
    """Overlapping tiles over (height, width) latents; one that adds nothing is left out."""
    return [
        _Tile(top, left, min(top + size[0], height), min(left + size[1], width))
        for top in _starts(height, size[0], stride[0])
        for left in _starts(width, size[1], stride[1])
    ]


def _blend_tiles(
    decoded: list[Tensor], tiles: list[_Tile], height: int, width: int, overlap: tuple[int, int]
) -> Tensor:
    """Weighted mean of decoded tiles (T, 3, h, w) -> (T, 3, height * 8, width * 8).

    The weight rises linearly over `overlap` latents (rows, columns) from borders inside.
    """
    size = (height * LATENT_STRIDE, width * LATENT_STRIDE)
    total = decoded[0].new_zeros((decoded[0].shape[0], 3, *size))
    weights = decoded[0].new_zeros(size)
    for frames, tile in zip(decoded, tiles, strict=True):
        rows = _ramp(tile.top, tile.bottom, height, overlap[0]).to(frames)
        columns = _ramp(tile.left, tile.right, width, overlap[1]).to(frames)
        weight = torch.minimum(rows[:, None], columns[None, :])
        at = (
            ...,
            slice(tile.top * LATENT_STRIDE, tile.bottom * LATENT_STRIDE),
            slice(tile.left * LATENT_STRIDE, tile.right * LATENT_STRIDE),
        )
        total[at] += frames * weight
        weights[at] += weight
    return total / weights


def _stages(widths: list[int]) -> Iterator[nn.Module]:
    last = len(widths) - 2
    for stage, (inputs, outputs) in enumerate(pairwise(widths)):
        # Each enlargement halves the width, so that all stages but the first enter with half.
        entering = inputs if stage == 0 else inputs // 2
        yield _Residual(entering, outputs)
        yield _Residual(outputs, outputs)
        yield _Residual(outputs, outputs)
        if stage < last:
            yield _Upsample(outputs, in_time=stage < 2)


def _starts(length: int, size: int, stride: int) -> list[int]:
    starts = range(0, length, stride)
    return [start for start in starts if start == 0 or start - stride + size < length]


def _ramp(first: int, last: int, length: int, overlap: int) -> Tensor:
    border = overlap * LATENT_STRIDE
    weight = torch.ones((last - first) * LATENT_STRIDE)
    rise = (torch.arange(border) + 1) / border
    if first > 0:
        weight[:border] = rise
    if last < length:
        weight[-border:] = rise.flip(0)
    return weight
