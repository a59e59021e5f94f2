"""What the DiT does between matrix products, one pass over memory each: the plain-torch twins.

Each is an operation of torch's own kind, so that graphs, compilers and counting see one thing: on
CUDA its kernel in `fused_triton` runs, elsewhere the twin written here, which defines it. The
residual stream is kept without biases: all that were added so far are one vector, which the norms
add while they read (`offset`).
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op
from torch.nn import functional as F

from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.config import WINDOW_TOKENS
from streamlift.upscalers.flashvsr.rope import Rotation, rotate
from streamlift.upscalers.flashvsr.selection import block_means, choose_blocks

__all__ = ["choose_lists", "layer_norm", "linear_gelu", "qkv_into_ring", "rms_norm"]


@custom_op("streamlift::layer_norm", mutates_args=())
def layer_norm(x: Tensor, offset: Tensor, eps: float) -> Tensor:
    """Layer norm without affine of x + offset; x (tokens, dim), offset (dim,) float32 or wider."""
    if _kernels(x):
        return _triton().row_norm(x, offset, eps, centred=True)  # type: ignore[no-any-return]
    return F.layer_norm(x + offset, x.shape[-1:], eps=eps).to(x.dtype)


@custom_op("streamlift::rms_norm", mutates_args=())
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x * rsqrt(mean(x ** 2) + eps) * weight over the last axis; x (tokens, dim)."""
    if _kernels(x):
        return _triton().row_norm(x, weight, eps, centred=False)  # type: ignore[no-any-return]
    return F.rms_norm(x, x.shape[-1:], weight, eps)


@custom_op("streamlift::qkv_into_ring", mutates_args=("keys", "values", "means"))
def qkv_into_ring(
    qkv: Tensor,
    norm_q: Tensor,
    norm_k: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    means: Tensor,
    slot: Tensor,
    slots: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Norm and rotate queries and keys, write keys and values into the ring; take block means.

    qkv (tokens, 3 * dim) in window order; norm_q, norm_k (dim,); cos, sin (tokens, head_dim / 2);
    keys, values (heads, slots * unit tokens, head_dim); means (heads, slots * windows, head_dim);
    slot () int64 on the device: where the first unit goes. Returns q (heads, tokens, head_dim)
    and its block means (heads, windows, head_dim).
    """
    if _kernels(qkv):
        found: tuple[Tensor, Tensor] = _triton().qkv_into_ring(
            qkv, norm_q, norm_k, cos, sin, keys, values, means, slot, slots, eps
        )
        return found
    heads, head_dim = keys.shape[0], keys.shape[2]
    rotation = Rotation(cos, sin)
    q, k, v = qkv.chunk(3, -1)
    # The norm runs over all heads together; rotation, windows and scores are by head.
    q, k = (
        rotate(
            torch.unflatten(F.rms_norm(x, x.shape[-1:], w, eps), -1, (heads, head_dim)), rotation
        )
        for x, w in ((q, norm_q), (k, norm_k))
    )
    q, k = (x.transpose(0, 1).contiguous() for x in (q, k))
    v = torch.unflatten(v, -1, (heads, head_dim)).transpose(0, 1)
    at = torch.arange(k.shape[1], device=k.device) + slot * (keys.shape[1] // slots)
    keys.index_copy_(1, at, k)
    values.index_copy_(1, at, v)
    k_means = block_means(k)
    at = torch.arange(k_means.shape[1], device=k.device) + slot * (means.shape[1] // slots)
    means.index_copy_(1, at, k_means)
    return q, block_means(q)


@custom_op("streamlift::choose_lists", mutates_args=())
def choose_lists(
    q_means: Tensor, k_means: Tensor, allowed: Tensor, topk: int
) -> tuple[Tensor, Tensor]:
    """`selection.choose_blocks` as lists: count (heads, queries), index (heads, queries, keys)."""
    if _kernels(q_means):
        found: tuple[Tensor, Tensor] = _choice().choose_lists(q_means, k_means, allowed, topk)
        return found
    blocks = BlockLists.from_mask(choose_blocks(q_means, k_means, allowed, topk))
    return blocks.count, blocks.index


@custom_op("streamlift::linear_gelu", mutates_args=())
def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """gelu(x @ weight.T + bias), tanh form; on CUDA in the matrix product's own epilogue."""
    if x.is_cuda:
        return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


@layer_norm.register_fake
def _(x: Tensor, offset: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x)


@rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x)


@qkv_into_ring.register_fake
def _(
    qkv: Tensor,
    norm_q: Tensor,
    norm_k: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    means: Tensor,
    slot: Tensor,
    slots: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    heads, _, head_dim = keys.shape
    tokens = qkv.shape[0]
    return (
        qkv.new_empty((heads, tokens, head_dim)),
        means.new_empty((heads, tokens // WINDOW_TOKENS, head_dim)),
    )


@choose_lists.register_fake
def _(q_means: Tensor, k_means: Tensor, allowed: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    heads, queries, keys = q_means.shape[0], q_means.shape[1], k_means.shape[1]
    kind = torch.int32
    return (
        q_means.new_empty((heads, queries), dtype=kind),
        q_means.new_empty((heads, queries, keys), dtype=kind),
    )


@linear_gelu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]))


def _kernels(x: Tensor) -> bool:
    return x.is_cuda and _has_triton()


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _triton() -> Any:
    return importlib.import_module("streamlift.upscalers.flashvsr.fused_triton")


def _choice() -> Any:
    return importlib.import_module("streamlift.upscalers.flashvsr.choice_triton")
