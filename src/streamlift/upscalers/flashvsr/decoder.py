"""TCDecoder: latents to frames, conditioned on the low-quality video; causal, cheap, streaming.

Its only memory is each block's own input at the previous time step, so all steps of a call run as
one batch. The 1 x 1 time expansion runs before the nearest enlargement, with which it commutes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamlift.upscalers.flashvsr.config import CLIP_FRAMES, LATENT_STRIDE, DecoderConfig

__all__ = ["TcDecoder", "fold_condition"]

_SOFT_LIMIT = 3.0


class TcDecoder(nn.Module):
    """`TCDecoder.ckpt`: names and indices are the checkpoint's."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        n0, n1, n2, n3 = config.channels
        inputs = 3 * CLIP_FRAMES * LATENT_STRIDE**2 + config.latent_channels
        self.config = config
        self.decoder = nn.Sequential(
            _SoftLimit(),
            _conv(inputs, n0, bias=True),
            nn.ReLU(),
            _conv(n0, n0),
            nn.ReLU(),
            *(_MemoryBlock(n0) for _ in range(3)),
            nn.Identity(),  # 8: the enlargement is done inside 9
            _Grow(n0, times=1),
            _conv(n0, n1),
            *(_MemoryBlock(n1) for _ in range(3)),
            nn.Identity(),  # 14
            _Grow(n1, times=2),
            _conv(n1, n2),
            *(_MemoryBlock(n2) for _ in range(3)),
            nn.Identity(),  # 20
            _Grow(n2, times=2),
            _conv(n2, n3),
            nn.ReLU(),
            _conv(n3, n3),
            nn.ReLU(),
            _conv(n3, 3, bias=True),
        )

    def new_memory(
        self, height: int, width: int, device: torch.device | str, dtype: torch.dtype
    ) -> list[Tensor]:
        """What a stream carries at a latent grid of (height, width): each block's last input."""
        n0, n1, n2, _ = self.config.channels
        stages = ((n0, 1), (n1, 2), (n2, 4))
        # In the layout of the network's own tensors, or each block would convert all it sees.
        layout = _layout(next(self.parameters()))
        return [
            torch.zeros((1, n, height * s, width * s), device=device, dtype=dtype).to(
                memory_format=layout
            )
            for n, s in stages
            for _ in range(3)
        ]

    def forward(self, latents: Tensor, condition: Tensor, memory: list[Tensor]) -> Tensor:
        """latents (k, 16, h, w), condition (k, 768, h, w) -> (4k, 3, 8h, 8w) around [-1, 1].

        Updates `memory` (zeros at first) in place. The first latent of a stream stands for one
        frame: the caller drops the first three frames of its four.
        """
        x = torch.cat((condition, latents), 1)
        past = iter(memory)
        for layer in self.decoder:
            x = layer(x, next(past)) if isinstance(layer, _MemoryBlock) else layer(x)
        return x * 2 - 1


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
        """x: consecutive time steps (T, n, h, w); memory: the step before them (1, n, h, w)."""
        past = torch.cat((memory, x[:-1]))
        memory.copy_(x[-1:])
        return F.relu(self.conv(torch.cat((x, past), 1)) + x)


class _Grow(nn.Module):
    """Each time step becomes `times` steps, the earlier in the first half of the channels; x2."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.times = times
        self.conv = nn.Conv2d(width, width * times, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.times > 1:
            steps, channels, height, width = x.shape
            shape = (steps * self.times, channels // self.times, height, width)
            spread = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_layout(x))
            for turn, part in enumerate(x.chunk(self.times, 1)):
                spread[turn :: self.times] = part
            x = spread
        return F.interpolate(x, scale_factor=2, mode="nearest")


class _SoftLimit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / _SOFT_LIMIT) * _SOFT_LIMIT


def fold_condition(clips: Tensor) -> Tensor:
    """(k, 4, 3, H, W) -> (k, 768, H / 8, W / 8); channel = ((c * 4 + dt) * 8 + dy) * 8 + dx."""
    return F.pixel_unshuffle(clips.transpose(1, 2).flatten(1, 2), LATENT_STRIDE)


def _layout(x: Tensor) -> torch.memory_format:
    last = torch.channels_last
    return last if x.is_contiguous(memory_format=last) else torch.contiguous_format


def _conv(inputs: int, outputs: int, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
