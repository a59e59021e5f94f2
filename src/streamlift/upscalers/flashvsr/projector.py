"""The causal projector: low-quality video to the tokens added at the entrance of the DiT.

Each Conv3d of kernel (4, 3, 3) and stride (2, 1, 1) runs as a Conv2d over its four time taps laid
side by side in the channels: the same sums, as one large matrix product.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamlift.upscalers.flashvsr.config import (
    CLIP_FRAMES,
    TOKEN_STRIDE,
    ProjectorConfig,
    Version,
)

__all__ = ["Projector", "fold_pixels"]

_TAPS = 4
_CARRIED = 2
"""Time steps of its input that a convolution keeps from one clip to the next."""


class Projector(nn.Module):
    """Tokens of one latent from each clip of four frames; see `published` for the weights.

    The carried steps belong to the stream and are passed in: conv1's input (2, 768, h, w) and
    conv2's input (2, hidden1, h, w).
    """

    def __init__(self, config: ProjectorConfig, version: Version) -> None:
        super().__init__()
        folded = 3 * TOKEN_STRIDE**2
        self.version = version
        self.conv1 = nn.Conv2d(_TAPS * folded, config.hidden1, 3)
        self.norm1 = _ChannelNorm(config.hidden1)
        self.conv2 = nn.Conv2d(_TAPS * config.hidden1, config.hidden2, 3)
        self.norm2 = _ChannelNorm(config.hidden2)
        self.linear_layers = nn.ModuleList(
            nn.Linear(config.hidden2, config.dim) for _ in range(config.layers)
        )

    def start(self, pixels: Tensor, carried1: Tensor, carried2: Tensor) -> None:
        """Take the first clip, which yields no tokens. pixels: (4, 768, h, w), frame 0 repeated."""
        carried1.copy_(pixels[:1].expand_as(carried1))
        hidden = self._first_layer(pixels, carried1)
        carried2.copy_(hidden[-_CARRIED:])

    def forward(self, pixels: Tensor, carried1: Tensor, carried2: Tensor) -> list[Tensor]:
        """Take k further clips; (4k, 768, h, w) -> for each linear layer (k, h * w, dim)."""
        hidden = self._first_layer(pixels, carried1)  # (2k, hidden1, h, w)
        taps = self._taps(hidden, carried2, steps=CLIP_FRAMES // 2)
        summary = F.silu(self.norm2(self.conv2(_pad_edges(taps))))  # (k, hidden2, h, w)
        tokens = summary.flatten(2).transpose(1, 2)
        return [layer(tokens) for layer in self.linear_layers]

    def _first_layer(self, pixels: Tensor, carried: Tensor) -> Tensor:
        taps = self._taps(pixels, carried, steps=CLIP_FRAMES)
        return F.silu(self.norm1(self.conv1(_pad_edges(taps))))

    def _taps(self, x: Tensor, carried: Tensor, *, steps: int) -> Tensor:
        """(T, C, h, w) -> (T / 2, 4 * C, h, w): the four steps under each output, oldest first."""
        if self.version is Version.V1:
            # v1 overwrites its cache before using it: a clip is preceded by its own last two
            # steps. The weights were trained with that, so it is kept.
            clips = torch.unflatten(x, 0, (-1, steps))
            padded = torch.cat((clips[:, -_CARRIED:], clips), 1)
        else:
            padded = torch.cat((carried, x))[None]
        carried.copy_(x[-_CARRIED:])
        taps = padded.unfold(1, _TAPS, 2)  # (clips, outputs, C, h, w, 4)
        return taps.permute(0, 1, 5, 2, 3, 4).flatten(0, 1).flatten(1, 2)


class _ChannelNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        gain: Tensor = self.gamma[:, None, None] * self.gamma.shape[0] ** 0.5
        return F.normalize(x, dim=1, eps=1e-12) * gain


def fold_pixels(frames: Tensor) -> Tensor:
    """(n, 3, H, W) -> (n, 768, H / 16, W / 16); channel = (c * 16 + dy) * 16 + dx."""
    return F.pixel_unshuffle(frames, TOKEN_STRIDE)


def _pad_edges(x: Tensor) -> Tensor:
    return F.pad(x, (1, 1, 1, 1), mode="replicate")
