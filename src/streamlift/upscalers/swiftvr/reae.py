"""ReAE: frames to latents and back, causal, with a memory of each block's last input.

An autoencoder in the manner of TAEHV (github.com/madebyollin/taehv). All time steps of a call and
all streams of a batch run as one batch of pictures, so any split of a stream gives the same.
Channels-last stays so throughout: no layer makes another layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamlift.upscalers.swiftvr.config import ReaeConfig

__all__ = ["Decoder", "Encoder"]

_SOFT_LIMIT = 3.0
_TAIL = 18
"""From here on the decoder keeps nothing, and its maps are the largest."""


class Encoder(nn.Module):
    """`encoder.*` of `reae.safetensors`: names and indices are the checkpoint's."""

    def __init__(self, config: ReaeConfig) -> None:
        super().__init__()
        width = config.encoder
        self.width = width
        self.layers = nn.Sequential(
            _conv(12, width, bias=True),
            nn.ReLU(),
            _Pool(width, 2),
            _conv(width, width, stride=2),
            *(_MemoryBlock(width) for _ in range(3)),
            _Pool(width, 2),
            _conv(width, width, stride=2),
            *(_MemoryBlock(width) for _ in range(3)),
            _Pool(width, 1),
            _conv(width, width, stride=2),
            *(_MemoryBlock(width) for _ in range(3)),
            _conv(width, config.channels, bias=True),
        )

    def memory_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """(channels, h, w) of each memory, for latents of (height, width)."""
        return [(self.width, height * s, width * s) for s in (4, 2, 1) for _ in range(3)]

    def forward(self, frames: Tensor, memory: list[Tensor]) -> Tensor:
        """(B, T, 3, H, W) in [0, 1], T a multiple of 4 -> (B, T / 4, C, H / 16, W / 16).

        Updates `memory`, (B, channels, h, w) each and zeros at first, in place.
        """
        x = F.pixel_unshuffle(frames.flatten(0, 1), 2)
        x = x.to(memory[0].dtype, memory_format=_layout(memory[0]))
        x = _run(self.layers, x, iter(memory))
        return torch.unflatten(x, 0, (frames.shape[0], -1))


class Decoder(nn.Module):
    """`decoder.*` of `reae.safetensors`, but for the growth layers, whose taps are summed.

    The last convolution runs in float32: bfloat16 has but one step a grey level above 0.5.
    """

    def __init__(self, config: ReaeConfig) -> None:
        super().__init__()
        n0, n1, n2, n3 = config.decoder
        self.widths = config.decoder
        self.layers = nn.Sequential(
            _SoftLimit(),
            _conv(config.channels, n0, bias=True),
            nn.ReLU(),
            *(_MemoryBlock(n0) for _ in range(3)),
            nn.Identity(),  # 6: the enlargement is done inside 7, after growth
            _Grow(n0, times=1),
            _conv(n0, n1),
            *(_MemoryBlock(n1) for _ in range(3)),
            nn.Identity(),  # 12
            _Grow(n1, times=2),
            _conv(n1, n2),
            *(_MemoryBlock(n2) for _ in range(3)),
            nn.Identity(),  # 18
            _Grow(n2, times=2),
            _conv(n2, n3),
            nn.ReLU(),
            _conv(n3, 12, bias=True),
        )

    def memory_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """(channels, h, w) of each memory, for latents of (height, width)."""
        scales = zip(self.widths[:3], (1, 2, 4), strict=True)
        return [(n, height * s, width * s) for n, s in scales for _ in range(3)]

    def forward(self, latents: Tensor, memory: list[Tensor]) -> Tensor:
        """(B, n, C, h, w) -> (B, 4n, 3, 16h, 16w) float32 in [0, 1]; updates `memory` in place.

        At a stream's start the caller drops the first three frames.
        """
        x = latents.flatten(0, 1).contiguous(memory_format=_layout(memory[0]))
        x = _run(list(self.layers)[:_TAIL], x, iter(memory))
        frames = [self._tail(part) for part in torch.split(x, 2)]
        return torch.unflatten(torch.cat(frames), 0, (latents.shape[0], -1))

    def _tail(self, x: Tensor) -> Tensor:
        """One latent at a time: these are the largest maps."""
        *layers, last = list(self.layers)[_TAIL:]
        assert isinstance(last, nn.Conv2d)
        x = _run(layers, x, iter(()))
        return F.pixel_shuffle(last(x.to(last.weight.dtype)), 2).clamp(0, 1)


class _MemoryBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width, bias=True),
            nn.ReLU(),
            _conv(width, width, bias=True),
            nn.ReLU(),
            _conv(width, width, bias=True),
        )

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x: the time steps of all streams (B * T, n, h, w); memory: the one before, (B, ...)."""
        steps, width, *sides = x.shape
        shape = (steps, 2 * width, *sides)
        # Present and past are written side by side, so that no layout is lost and nothing joined.
        both = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_layout(x))
        both[:, :width] = x
        streams = memory.shape[0]
        times = torch.unflatten(x, 0, (streams, -1))
        past = torch.unflatten(both, 0, (streams, -1))[:, :, width:]
        past[:, 0] = memory
        past[:, 1:] = times[:, :-1]
        memory.copy_(times[:, -1])
        return F.relu(self.conv(both) + x)


class _Pool(nn.Module):
    """`steps` consecutive time steps become one."""

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.conv = nn.Conv2d(width * steps, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.steps > 1:
            x = torch.cat([x[turn :: self.steps] for turn in range(self.steps)], 1)
        return self.conv(x)  # type: ignore[no-any-return]


class _Grow(nn.Module):
    """Each time step becomes `times` steps, the earlier in the first channels; then enlarged x2.

    The convolution is 1 x 1, so it commutes with nearest enlargement and runs before it.
    """

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.times = times
        self.conv = nn.Conv2d(width, width * times, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.times > 1:
            steps, channels, *sides = x.shape
            shape = (steps * self.times, channels // self.times, *sides)
            spread = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_layout(x))
            for turn, part in enumerate(x.chunk(self.times, 1)):
                spread[turn :: self.times] = part
            x = spread
        return F.interpolate(x, scale_factor=2, mode="nearest")


class _SoftLimit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / _SOFT_LIMIT) * _SOFT_LIMIT


def _run(layers: Iterable[nn.Module], x: Tensor, past: Iterator[Tensor]) -> Tensor:
    for layer in layers:
        x = layer(x, next(past)) if isinstance(layer, _MemoryBlock) else layer(x)
    return x


def _layout(x: Tensor) -> torch.memory_format:
    last = torch.channels_last
    return last if x.is_contiguous(memory_format=last) else torch.contiguous_format


def _conv(inputs: int, outputs: int, *, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)
