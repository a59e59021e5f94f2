"""TCDecoder: latents to frames, conditioned on the low-quality video; causal, cheap, streaming.

Its only memory is each block's own input at the previous time step, so all steps of a call run as
one batch. It runs on weights folded once: time expansion, enlargement and the convolution after
them are four small convolutions on the small grid, and every convolution does in one pass all that
surrounds it (`convolution`): nothing is concatenated, no activation is a pass of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamlift.upscalers.convolution import (
    conv3x3,
    enlarging_conv,
    fold_enlargement,
    pack_taps,
)
from streamlift.upscalers.flashvsr.config import CLIP_FRAMES, LATENT_STRIDE, DecoderConfig

__all__ = ["TcDecoder", "fold_condition"]

_SOFT_LIMIT = 3.0
_Folded = tuple[Tensor, Tensor | None]
"""Weights as `convolution` takes them, and a bias."""


class TcDecoder(nn.Module):
    """`TCDecoder.ckpt`: names and indices are the checkpoint's."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        n0, n1, n2, n3 = config.channels
        self._folded: dict[int, _Folded] | None = None
        inputs = 3 * CLIP_FRAMES * LATENT_STRIDE**2 + config.latent_channels
        self.config = config
        self.decoder = nn.Sequential(
            nn.Identity(),  # 0: a soft limit on both inputs
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
        # In the layout that the convolutions read.
        host = torch.device(device).type == "cpu"
        layout = torch.contiguous_format if host else torch.channels_last
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
        layers, fold = self.decoder, self.folded()
        x = _conv_into(_limit(condition), fold[1], latents.shape, slope=0.0, second=_limit(latents))
        x = _conv_into(x, fold[3], x.shape, slope=0.0)
        past = iter(memory)
        for first in (5, 11, 17):
            for index in range(first, first + 3):
                x = self._remember(x, next(past), index)
            grow = layers[first + 4]
            assert isinstance(grow, _Grow)
            weight = fold[first + 5][0]
            shape = (x.shape[0] * grow.times, weight.shape[-1], 2 * x.shape[2], 2 * x.shape[3])
            out = _new(x, shape)
            enlarging_conv(x, weight, None, out, 0.0 if first == 17 else 1.0)
            x = out
        x = _conv_into(x, fold[24], x.shape, slope=0.0)
        return _conv_into(x, fold[26], x.shape)  # 2 y - 1 is in its weights

    def folded(self) -> dict[int, _Folded]:
        """The convolutions by the index of their layer, as they run; made once, when loaded."""
        if self._folded is None:
            self._folded = self._fold()
        return self._folded

    def _fold(self) -> dict[int, _Folded]:
        folded: dict[int, _Folded] = {}
        for index, layer in enumerate(self.decoder):
            if isinstance(layer, nn.Conv2d) and index not in (10, 16, 22):
                folded[index] = pack_taps(layer.weight.detach()), layer.bias
            elif isinstance(layer, _MemoryBlock):
                for number in (0, 2, 4):
                    conv = layer.conv[number]
                    assert isinstance(conv, nn.Conv2d)
                    folded[100 * index + number] = pack_taps(conv.weight.detach()), conv.bias
            elif isinstance(layer, _Grow):
                conv, before = self.decoder[index + 1], layer.conv.weight.detach()
                assert isinstance(conv, nn.Conv2d)
                taps = fold_enlargement(conv.weight.detach(), before, layer.times)
                folded[index + 1] = taps, None
        weight, bias = folded[26]
        assert bias is not None
        folded[26] = weight * 2, bias.detach() * 2 - 1
        return folded

    def _remember(self, x: Tensor, past: Tensor, index: int) -> Tensor:
        """A memory block: x (T, n, h, w), consecutive steps; past (1, n, h, w), the one before."""
        fold = self.folded()
        y = _conv_into(x, fold[100 * index], x.shape, slope=0.0, second=x, before=past)
        past.copy_(x[-1:])
        y = _conv_into(y, fold[100 * index + 2], x.shape, slope=0.0)
        return _conv_into(y, fold[100 * index + 4], x.shape, slope=0.0, residual=x)


class _MemoryBlock(nn.Module):
    """relu(conv4(relu(conv2(relu(conv0([x, past]))))) + x): weights only, see `_remember`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width, bias=True),
            nn.ReLU(),
            _conv(width, width, bias=True),
            nn.ReLU(),
            _conv(width, width, bias=True),
        )


class _Grow(nn.Module):
    """Each time step becomes `times` steps, the earlier in the first half of the channels; weights
    only, folded into the convolution after it."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.times = times
        self.conv = nn.Conv2d(width, width * times, 1, bias=False)


def _limit(x: Tensor) -> Tensor:
    return torch.tanh(x / _SOFT_LIMIT) * _SOFT_LIMIT


def _conv_into(
    x: Tensor,
    folded: _Folded,
    shape: torch.Size,
    *,
    slope: float = 1.0,
    second: Tensor | None = None,
    before: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """A convolution of this many pictures and this size of them into new memory."""
    weight, bias = folded
    out = _new(x, (shape[0], weight.shape[-1], *shape[2:]))
    conv3x3(x, weight, bias, out, second, before, slope, residual)
    return out


def _new(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    last = torch.channels_last if x.device.type != "cpu" else torch.contiguous_format
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=last)


def fold_condition(clips: Tensor) -> Tensor:
    """(k, 4, 3, H, W) -> (k, 768, H / 8, W / 8); channel = ((c * 4 + dt) * 8 + dy) * 8 + dx."""
    return F.pixel_unshuffle(clips.transpose(1, 2).flatten(1, 2), LATENT_STRIDE)


def _conv(inputs: int, outputs: int, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
