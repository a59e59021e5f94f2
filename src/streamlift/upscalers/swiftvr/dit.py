"""The one-step denoiser in the form that runs: constants folded, no cache, dense windows.

Time step, prompt, gates and affine norms are folded into the neighbouring linear layers (`fold`);
each block is then plain layer norms, matrix products and attention, for any number of streams.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamlift.upscalers.swiftvr.config import DitConfig
from streamlift.upscalers.swiftvr.grid import Grid, Turn
from streamlift.upscalers.swiftvr.windows import Windows

__all__ = ["Block", "Dit", "attend", "rotate"]


class Dit(nn.Module):
    """Degraded latents -> the velocity that leads away from restored ones."""

    def __init__(self, config: DitConfig, context_rows: int) -> None:
        super().__init__()
        self.config = config
        self.patch = nn.Linear(config.channels * 4, config.dim)
        self.blocks = nn.ModuleList(Block(config, context_rows) for _ in range(config.blocks))
        self.head = nn.Linear(config.dim, config.channels * 4)
        self.context_weight = nn.Parameter(torch.zeros(context_rows))
        self.uneven = True
        """Whether prompt rows weigh differently, see `weigh_context`."""

    def forward(self, latents: Tensor, grid: Grid) -> Tensor:
        """(B, n, C, 2h, 2w) -> the same shape: latents minus it are the restored ones."""
        x = self.patch(_to_patches(latents))
        if grid.order is not None:
            x = x[:, grid.order]
        weight = self.context_weight if self.uneven else None
        for number, block in enumerate(self.blocks):
            windows = grid.shifted if number % 2 else grid.plain
            x = block(x, grid.turn, windows, weight)
        x = self.head(F.layer_norm(x, x.shape[-1:], eps=self.config.eps))
        if grid.back is not None:
            x = x[:, grid.back]
        return _from_patches(x, grid.shape)

    def weigh_context(self) -> None:
        """Look once whether the prompt's rows weigh alike: then its attention needs no bias."""
        self.uneven = bool(self.context_weight.any())

    def compile_parts(self) -> None:
        """Let torch.compile fuse each block; all share their code, in two kinds of windows."""
        for block in self.blocks:
            block.compile(dynamic=False)


class Block(nn.Module):
    """Pure: everything it needs comes in, so that it can be compiled or recorded."""

    def __init__(self, config: DitConfig, context_rows: int) -> None:
        super().__init__()
        self.eps = config.eps
        self.self_attn = _SelfAttention(config)
        self.cross_attn = _CrossAttention(config, context_rows)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.ffn_dim, config.dim),
        )

    def forward(self, x: Tensor, turn: Turn, windows: Windows, weight: Tensor | None) -> Tensor:
        """x: (B, tokens, dim); weight: (rows,) or None."""
        x = x + self.self_attn(self._norm(x), turn, windows)
        x = x + self.cross_attn(self._norm(x), weight)
        return x + self.ffn(self._norm(x))  # type: ignore[no-any-return]

    def _norm(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=self.eps)


class _SelfAttention(nn.Module):
    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.heads = (config.heads, config.head_dim)
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.norm_q = nn.RMSNorm(config.dim, eps=config.eps)
        self.norm_k = nn.RMSNorm(config.dim, eps=config.eps)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, turn: Turn, windows: Windows) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        # The norm runs over all heads together; rotation, windows and scores are by head.
        q = rotate(torch.unflatten(self.norm_q(q), -1, self.heads), turn)
        k = rotate(torch.unflatten(self.norm_k(k), -1, self.heads), turn)
        mixed = attend(q, k, torch.unflatten(v, -1, self.heads), windows)
        return self.out(mixed.flatten(2))  # type: ignore[no-any-return]


class _CrossAttention(nn.Module):
    """Dense attention to the fixed prompt, whose keys and values are constants."""

    def __init__(self, config: DitConfig, context_rows: int) -> None:
        super().__init__()
        self.heads = (config.heads, config.head_dim)
        self.q = nn.Linear(config.dim, config.dim)
        self.norm_q = nn.RMSNorm(config.dim, eps=config.eps)
        shape = (config.heads, context_rows, config.head_dim)
        self.keys = nn.Parameter(torch.empty(shape))
        self.values = nn.Parameter(torch.empty(shape))
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """weight: log of how often each distinct prompt row occurs; None if each does once."""
        q = torch.unflatten(self.norm_q(self.q(x)), -1, self.heads).transpose(1, 2)
        streams = (x.shape[0], -1, -1, -1)
        keys, values = self.keys[None].expand(streams), self.values[None].expand(streams)
        bias = None if weight is None else weight.to(q.dtype)[None, None, None]
        mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=bias)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def attend(q: Tensor, k: Tensor, v: Tensor, windows: Windows) -> Tensor:
    """Dense attention inside each window, all windows of all streams as one batch.

    (B, tokens, heads, head_dim) each, and so is the result.
    """
    streams = q.shape[0]

    def split(x: Tensor) -> Tensor:
        if windows.gather is not None:
            x = x[:, windows.gather]
        return torch.unflatten(x, 1, (windows.count, -1)).flatten(0, 1).transpose(1, 2)

    mixed = F.scaled_dot_product_attention(split(q), split(k), split(v)).transpose(1, 2)
    mixed = mixed.reshape(streams, -1, *q.shape[2:])
    return mixed if windows.owner is None else mixed[:, windows.owner]


def rotate(x: Tensor, turn: Turn) -> Tensor:
    """Turn the pairs (2i, 2i + 1) of each head: (B, tokens, heads, head_dim), in float32."""
    pairs = torch.unflatten(x.float(), -1, (-1, 2))
    if torch.compiler.is_compiling():  # which fuses this, and knows no complex numbers
        real, imaginary = pairs.unbind(-1)
        cos, sin = turn.cos, turn.sin
        turned = torch.stack((real * cos - imaginary * sin, real * sin + imaginary * cos), -1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * turn.both)
    return turned.flatten(-2).to(x.dtype)


def _to_patches(latents: Tensor) -> Tensor:
    """(B, n, C, 2h, 2w) -> (B, n * h * w, C * 4), channel-major inside a patch."""
    streams, steps, channels, height, width = latents.shape
    split = latents.reshape(streams, steps, channels, height // 2, 2, width // 2, 2)
    return split.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)


def _from_patches(tokens: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(B, n * h * w, 4 * C), pixel-major inside a patch -> (B, n, C, 2h, 2w)."""
    streams, (steps, height, width) = tokens.shape[0], shape
    split = tokens.reshape(streams, steps, height, width, 2, 2, -1)
    moved = split.permute(0, 1, 6, 2, 4, 3, 5)
    return moved.reshape(streams, steps, -1, 2 * height, 2 * width)
