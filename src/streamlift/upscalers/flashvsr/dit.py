"""The one-step denoiser in the form that runs: constants folded, window order, keys in a ring.

Modulation, gates and affine norms are folded into the neighbouring linear layers (`published`);
each block is then plain layer norms, matrix products and attention.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamlift.upscalers.flashvsr.attention import Attend
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.config import DitConfig
from streamlift.upscalers.flashvsr.memory import KvRing
from streamlift.upscalers.flashvsr.rope import Rotation, rotate
from streamlift.upscalers.flashvsr.selection import block_means, choose_blocks
from streamlift.upscalers.flashvsr.windows import from_windows, to_windows

__all__ = ["Dit", "Sparsity"]


@dataclass(frozen=True, slots=True, eq=False)
class Sparsity:
    """What the block choice needs: the local mask (n, n) bool, the top-k, and the attention."""

    allowed: Tensor
    topk: int
    attend: Attend


class Dit(nn.Module):
    """noise -> prediction, with latent = noise - prediction."""

    def __init__(self, config: DitConfig, context_rows: int) -> None:
        super().__init__()
        self.config = config
        self.patch = nn.Linear(config.channels * 4, config.dim)
        self.blocks = nn.ModuleList(_Block(config, context_rows) for _ in range(config.blocks))
        self.head = nn.Linear(config.dim, config.channels * 4)
        self.context_weight = nn.Parameter(torch.zeros(context_rows))

    def forward(
        self,
        noise: Tensor,
        lq_tokens: Tensor,
        ring: KvRing,
        rotation: Rotation,
        sparsity: Sparsity,
    ) -> Tensor:
        """One chunk: noise (16, f, H/8, W/8), lq_tokens (f, h * w, dim) -> (16, f, H/8, W/8).

        Writes the chunk's keys and values into the ring, which the caller then advances; f is
        even.
        """
        frames, height, width = noise.shape[1], noise.shape[2] // 2, noise.shape[3] // 2
        x = self.patch(to_windows(_to_patches(noise)))
        x = x + to_windows(torch.unflatten(lq_tokens, 1, (height, width)))
        for layer, block in enumerate(self.blocks):
            x = block(x, ring, layer, rotation, sparsity, self.context_weight)
        x = self.head(_layer_norm(x, self.config.eps))
        return _from_patches(from_windows(x, frames, height, width))

    def compile_parts(self) -> None:
        """Let torch.compile fuse the pure parts of all blocks; they share their code."""
        for block in self.blocks:
            if isinstance(block, _Block):
                for name in ("enter", "choose", "leave"):
                    setattr(block, name, torch.compile(getattr(block, name), dynamic=False))


class _Block(nn.Module):
    """`enter`, `choose` and `leave` are pure, so that they can be compiled one by one."""

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

    def forward(
        self,
        x: Tensor,
        ring: KvRing,
        layer: int,
        rotation: Rotation,
        sparsity: Sparsity,
        context_weight: Tensor,
    ) -> Tensor:
        """x: (tokens, dim) in window order."""
        q, k, v, q_means, k_means = self.enter(x, rotation.cos, rotation.sin)
        keys, values, all_means = ring.store(layer, k, v, k_means)
        count, index = self.choose(q_means, all_means, sparsity.allowed, sparsity.topk)
        mixed = sparsity.attend(q, keys, values, BlockLists(count, index))
        return self.leave(x, mixed, context_weight)

    def enter(
        self, x: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """q, k, v (heads, tokens, head_dim), and the block means of q and k."""
        q, k, v = self.self_attn(_layer_norm(x, self.eps), Rotation(cos, sin))
        return q, k, v, block_means(q), block_means(k)

    def choose(
        self, q_means: Tensor, k_means: Tensor, allowed: Tensor, topk: int
    ) -> tuple[Tensor, Tensor]:
        """Count and index of the blocks to attend."""
        blocks = BlockLists.from_mask(choose_blocks(q_means, k_means, allowed, topk))
        return blocks.count, blocks.index

    def leave(self, x: Tensor, mixed: Tensor, context_weight: Tensor) -> Tensor:
        """All that follows the attention; mixed: (heads, tokens, head_dim)."""
        x = x + self.self_attn.out(mixed.transpose(0, 1).flatten(1))
        x = x + self.cross_attn(_layer_norm(x, self.eps), context_weight)
        return x + self.ffn(_layer_norm(x, self.eps))  # type: ignore[no-any-return]


class _SelfAttention(nn.Module):
    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.norm_q = nn.RMSNorm(config.dim, eps=config.eps)
        self.norm_k = nn.RMSNorm(config.dim, eps=config.eps)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """(tokens, dim) -> q, k, v (heads, tokens, head_dim), q and k normed and rotated."""
        q, k, v = self.qkv(x).chunk(3, -1)
        heads = (self.config.heads, self.config.head_dim)
        # The norm runs over all heads together; rotation, windows and scores are by head.
        q = rotate(torch.unflatten(self.norm_q(q), -1, heads), rotation).transpose(0, 1)
        k = rotate(torch.unflatten(self.norm_k(k), -1, heads), rotation).transpose(0, 1)
        return q, k, torch.unflatten(v, -1, heads).transpose(0, 1)


class _CrossAttention(nn.Module):
    """Dense attention to the fixed prompt, whose keys and values are constants."""

    def __init__(self, config: DitConfig, context_rows: int) -> None:
        super().__init__()
        self.config = config
        self.q = nn.Linear(config.dim, config.dim)
        self.norm_q = nn.RMSNorm(config.dim, eps=config.eps)
        shape = (config.heads, context_rows, config.head_dim)
        self.keys = nn.Parameter(torch.empty(shape))
        self.values = nn.Parameter(torch.empty(shape))
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, context_weight: Tensor) -> Tensor:
        """context_weight: (rows,), log of how often each distinct prompt row occurs."""
        heads = (self.config.heads, self.config.head_dim)
        q = torch.unflatten(self.norm_q(self.q(x)), -1, heads).transpose(0, 1)
        mixed = F.scaled_dot_product_attention(
            q[None], self.keys[None], self.values[None], attn_mask=context_weight.to(q.dtype)[None]
        )
        return self.out(mixed[0].transpose(0, 1).flatten(1))  # type: ignore[no-any-return]


def _layer_norm(x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def _to_patches(latents: Tensor) -> Tensor:
    """(C, f, 2h, 2w) -> (f, h, w, C * 4), channel-major inside a patch."""
    channels, frames, height, width = latents.shape
    split = latents.reshape(channels, frames, height // 2, 2, width // 2, 2)
    return split.permute(1, 2, 4, 0, 3, 5).flatten(3)


def _from_patches(tokens: Tensor) -> Tensor:
    """(f, h, w, 4 * C), pixel-major inside a patch -> (C, f, 2h, 2w)."""
    frames, height, width, _ = tokens.shape
    split = torch.unflatten(tokens, -1, (2, 2, -1))
    return split.permute(5, 0, 1, 3, 2, 4).reshape(-1, frames, 2 * height, 2 * width)
