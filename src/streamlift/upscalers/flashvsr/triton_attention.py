"""Block-list attention as one Triton kernel; `attention.attend_exact` is its plain-torch twin.

One program takes one query block of one head and walks that row's list with a running softmax.
Import it only where triton is installed. It uses no instruction newer than sm_80's.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.config import WINDOW_TOKENS

__all__ = ["attend_triton", "block_list_attention", "launch_options"]

_LOG2_E = 1.4426950408889634


def attend_triton(q: Tensor, k: Tensor, v: Tensor, blocks: BlockLists) -> Tensor:
    """See the contract in `attention`; head_dim must be a power of two, 16 or more."""
    heads, tokens, head_dim = q.shape
    q, k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (q, k, v))
    count, index = blocks.count.contiguous(), blocks.index.contiguous()
    out = torch.empty((heads, tokens, head_dim), dtype=q.dtype, device=q.device)
    block_list_attention[(tokens // WINDOW_TOKENS, heads)](
        q,
        k,
        v,
        out,
        count,
        index,
        *q.stride()[:2],
        *k.stride()[:2],
        *v.stride()[:2],
        *out.stride()[:2],
        index.shape[1],
        index.shape[2],
        head_dim**-0.5 * _LOG2_E,
        **launch_options(head_dim, q.dtype),
    )
    return out


def launch_options(head_dim: int, dtype: torch.dtype) -> dict[str, Any]:
    """Compile-time constants for a head size and number format."""
    wide = dtype is torch.float32
    return {
        "HEAD_DIM": head_dim,
        "BLOCK": WINDOW_TOKENS,
        "KEYS": 32 if wide else 64,
        "PRECISION": "ieee" if wide else "tf32",
        "num_warps": 8,
        "enable_fp_fusion": True,
        "num_stages": 2 if wide else 3,
    }


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def block_list_attention(  # type: ignore[no-untyped-def]
    q_at,
    k_at,
    v_at,
    out_at,
    count_at,
    index_at,
    q_head,
    q_token,
    k_head,
    k_token,
    v_head,
    v_token,
    out_head,
    out_token,
    rows,
    columns,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid (query blocks, heads). Softmax in base 2, sums in float32."""
    row = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    tokens = row * BLOCK + tl.arange(0, BLOCK)
    dims = tl.arange(0, HEAD_DIM)
    q = tl.load(q_at + head * q_head + tokens[:, None] * q_token + dims[None, :])
    count = tl.load(count_at + head * rows + row)
    listed = index_at + (head * rows + row) * columns

    top = tl.full((BLOCK,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    mixed = tl.zeros((BLOCK, HEAD_DIM), tl.float32)
    for step in range(count * (BLOCK // KEYS)):
        block = tl.load(listed + step // (BLOCK // KEYS))
        first = block * BLOCK + step % (BLOCK // KEYS) * KEYS
        keys = first + tl.arange(0, KEYS)
        k = tl.load(k_at + head * k_head + keys[None, :] * k_token + dims[:, None])
        v = tl.load(v_at + head * v_head + keys[:, None] * v_token + dims[None, :])
        scores = tl.dot(q, k, input_precision=PRECISION) * scale_log2
        higher = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(weights, 1)
        mixed = mixed * shrink[:, None]
        mixed = tl.dot(weights.to(v.dtype), v, mixed, input_precision=PRECISION)
        top = higher
    # A row without any key block gives zeros.
    mixed = mixed / tl.where(total > 0, total, 1.0)[:, None]
    target = out_at + head * out_head + tokens[:, None] * out_token + dims[None, :]
    tl.store(target, mixed.to(out_at.dtype.element_ty))
