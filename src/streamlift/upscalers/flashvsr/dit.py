"""The one-step denoiser in the form that runs: constants folded, window order, keys in a ring.

Modulation, gates and affine norms are folded into the neighbouring linear layers (`published`);
each block is then plain layer norms, matrix products and attention. What lies between matrix
products is one pass each (`fused`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamlift.upscalers.flashvsr.attention import Attend
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.config import DitConfig
from streamlift.upscalers.flashvsr.fused import (
    choose_lists,
    layer_norm,
    linear_gelu,
    qkv_into_ring,
    rms_norm,
)
from streamlift.upscalers.flashvsr.memory import KvRing
from streamlift.upscalers.flashvsr.rope import Rotation
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
        self._offsets: list[Tensor] | None = None

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
        offsets = iter(self.offsets())
        for layer, block in enumerate(self.each_block()):
            block(x, next(offsets), ring, layer, rotation, sparsity, self.context_weight)
        x = self.head(layer_norm(x, next(offsets)[0], self.config.eps))
        return _from_patches(from_windows(x, frames, height, width))

    def offsets(self) -> list[Tensor]:
        """What the residual stream lacks before each norm: (3, dim) a block, (1, dim) for the head.

        The sum of all biases added so far, float32 or wider; made once, when the weights are there.
        """
        if self._offsets is None:
            wide = torch.float64 if self.patch.weight.dtype is torch.float64 else torch.float32
            so_far = torch.zeros_like(self.patch.bias, dtype=wide)
            self._offsets = []
            for block in self.each_block():
                rows = [so_far]
                for bias in block.biases():
                    rows.append(rows[-1] + bias.to(wide))
                self._offsets.append(torch.stack(rows[:3]))
                so_far = rows[3]
            self._offsets.append(so_far[None])
        return self._offsets

    def each_block(self) -> list[_Block]:
        """The blocks, with their type."""
        return [block for block in self.blocks if isinstance(block, _Block)]


class _Block(nn.Module):
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

    def biases(self) -> tuple[Tensor, Tensor, Tensor]:
        """Those of the layers that write into the residual stream, in their order."""
        return self.self_attn.out.bias, self.cross_attn.out.bias, self._ffn(2).bias

    def forward(
        self,
        x: Tensor,
        offset: Tensor,
        ring: KvRing,
        layer: int,
        rotation: Rotation,
        sparsity: Sparsity,
        context_weight: Tensor,
    ) -> None:
        """Update x (tokens, dim) in window order, in place; offset: (3, dim), see `Dit.offsets`."""
        own = self.self_attn
        place = ring.place(layer)
        q, q_means = qkv_into_ring(
            own.qkv(layer_norm(x, offset[0], self.eps)),
            own.norm_q.weight,
            own.norm_k.weight,
            rotation.cos,
            rotation.sin,
            *place,
            ring.slot,
            ring.slots,
            self.eps,
        )
        keys, values, k_means = ring.filled(layer, x.shape[0])
        count, index = choose_lists(q_means, k_means, sparsity.allowed, sparsity.topk)
        mixed = sparsity.attend(q, keys, values, BlockLists(count, index))
        _add(x, mixed.transpose(0, 1).flatten(1), own.out)
        _add(
            x,
            self.cross_attn(layer_norm(x, offset[1], self.eps), context_weight),
            self.cross_attn.out,
        )
        up = self._ffn(0)
        wide = linear_gelu(layer_norm(x, offset[2], self.eps), up.weight, up.bias)
        _add(x, wide, self._ffn(2))

    def _ffn(self, index: int) -> nn.Linear:
        layer = self.ffn[index]
        assert isinstance(layer, nn.Linear)
        return layer


class _SelfAttention(nn.Module):
    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.norm_q = nn.RMSNorm(config.dim, eps=config.eps)
        self.norm_k = nn.RMSNorm(config.dim, eps=config.eps)
        self.out = nn.Linear(config.dim, config.dim)


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
        """(tokens, dim) -> the same, before `out`; context_weight: (rows,), log of how often each
        distinct prompt row occurs."""
        heads = (self.config.heads, self.config.head_dim)
        q = rms_norm(self.q(x), self.norm_q.weight, self.config.eps)
        mixed = F.scaled_dot_product_attention(
            torch.unflatten(q, -1, heads).transpose(0, 1)[None],
            self.keys[None],
            self.values[None],
            attn_mask=context_weight.to(q.dtype)[None],
        )
        return mixed[0].transpose(0, 1).flatten(1)


def _add(x: Tensor, y: Tensor, layer: nn.Linear) -> None:
    """x += layer(y) without its bias, in the matrix product itself."""
    x.addmm_(y, layer.weight.t())


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
