"""The DiT's passes between matrix products as Triton kernels; their twins are in `fused`.

Import it only where triton is installed. Nothing here is newer than sm_80.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamlift.upscalers.flashvsr.config import WINDOW_TOKENS

__all__ = ["qkv_into_ring", "qkv_ring_kernel", "row_norm", "row_norm_kernel"]

_ROWS_OF_NORM = 4
"""Tokens a program: three quarters of a kilobyte each at full width, in flight together."""


def row_norm(x: Tensor, vector: Tensor, eps: float, *, centred: bool) -> Tensor:
    """`fused.layer_norm` of x + vector if centred, else `fused.rms_norm` times vector."""
    x = x.contiguous()
    out = torch.empty_like(x)
    rows, dim = x.shape
    row_norm_kernel[(triton.cdiv(rows, _ROWS_OF_NORM),)](
        x,
        vector,
        out,
        rows,
        eps,
        DIM=dim,
        WIDTH=triton.next_power_of_2(dim),
        ROWS=_ROWS_OF_NORM,
        CENTRED=centred,
        num_warps=4,
    )
    return out


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
    """See `fused.qkv_into_ring`; head_dim must be a power of two."""
    heads, ring_tokens, head_dim = keys.shape
    qkv, cos, sin = qkv.contiguous(), cos.contiguous(), sin.contiguous()
    tokens = qkv.shape[0]
    windows = tokens // WINDOW_TOKENS
    q = torch.empty((heads, tokens, head_dim), dtype=qkv.dtype, device=qkv.device)
    q_means = torch.empty((heads, windows, head_dim), dtype=means.dtype, device=qkv.device)
    qkv_ring_kernel[(windows, 3)](
        qkv,
        norm_q,
        norm_k,
        cos,
        sin,
        q,
        q_means,
        keys,
        values,
        means,
        slot,
        *keys.stride()[:2],
        *values.stride()[:2],
        *means.stride()[:2],
        windows,
        ring_tokens // WINDOW_TOKENS // slots,
        eps,
        HEADS=heads,
        HEAD_DIM=head_dim,
        BLOCK=WINDOW_TOKENS,
        num_warps=8,
    )
    return q, q_means


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def row_norm_kernel(  # type: ignore[no-untyped-def]
    x_at,
    vector_at,
    out_at,
    rows,
    eps,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    CENTRED: tl.constexpr,
):
    """Grid (row groups,). One read, one write; sums in float32."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = (row < rows)[:, None] & (column < DIM)[None, :]
    place = row.to(tl.int64)[:, None] * DIM + column[None, :]
    x = tl.load(x_at + place, inside, 0.0).to(tl.float32)
    vector = tl.load(vector_at + column, column < DIM, 0.0).to(tl.float32)
    if CENTRED:
        x += vector[None, :]
        mean = tl.sum(x, 1) / DIM
        x = tl.where(inside, x - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(x * x, 1) / DIM + eps)
    x = x * scale[:, None]
    if not CENTRED:
        x = x * vector[None, :]
    tl.store(out_at + place, x.to(out_at.dtype.element_ty), inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def qkv_ring_kernel(  # type: ignore[no-untyped-def]
    qkv_at,
    norm_q_at,
    norm_k_at,
    cos_at,
    sin_at,
    q_at,
    q_means_at,
    keys_at,
    values_at,
    means_at,
    slot_at,
    k_head,
    k_token,
    v_head,
    v_token,
    m_head,
    m_window,
    windows,
    windows_a_slot,
    eps,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Grid (windows, 3): a program takes one window's queries, keys or values, head by head.

    The norm runs over all heads, so queries and keys are read twice, the second time from cache.
    """
    window = tl.program_id(0)
    part = tl.program_id(1)
    DIM: tl.constexpr = HEADS * HEAD_DIM
    HALF: tl.constexpr = HEAD_DIM // 2
    rows = (window * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    dims = tl.arange(0, HEAD_DIM)
    source = qkv_at + rows[:, None] * (3 * DIM) + part * DIM + dims[None, :]
    target_window = tl.load(slot_at).to(tl.int64) * windows_a_slot + window
    ring_rows = target_window * BLOCK + tl.arange(0, BLOCK)
    if part == 2:
        target = values_at + ring_rows[:, None] * v_token + dims[None, :]
        for head in range(HEADS):
            v = tl.load(source + head * HEAD_DIM)
            tl.store(target + head * v_head, v)
    else:
        squares = tl.zeros((BLOCK,), tl.float32)
        for head in range(HEADS):
            x = tl.load(source + head * HEAD_DIM).to(tl.float32)
            squares += tl.sum(x * x, 1)
        scale = tl.rsqrt(squares / DIM + eps)
        pairs = tl.arange(0, HALF)
        cos = tl.load(cos_at + rows[:, None] * HALF + pairs[None, :])
        sin = tl.load(sin_at + rows[:, None] * HALF + pairs[None, :])
        for head in range(HEADS):
            x = tl.load(source + head * HEAD_DIM).to(tl.float32)
            if part == 0:
                weight = tl.load(norm_q_at + head * HEAD_DIM + dims).to(tl.float32)
            else:
                weight = tl.load(norm_k_at + head * HEAD_DIM + dims).to(tl.float32)
            # Rounded where the twin rounds: after the norm, and after the rotation.
            x = (x * scale[:, None] * weight[None, :]).to(qkv_at.dtype.element_ty).to(tl.float32)
            real, imaginary = tl.split(tl.reshape(x, (BLOCK, HALF, 2)))
            turned = tl.join(real * cos - imaginary * sin, real * sin + imaginary * cos)
            x = tl.reshape(turned, (BLOCK, HEAD_DIM)).to(qkv_at.dtype.element_ty)
            mean = tl.sum(x.to(tl.float32), 0) / BLOCK
            if part == 0:
                place = q_at + (head * windows * BLOCK + rows)[:, None] * HEAD_DIM
                tl.store(place + dims[None, :], x)
                tl.store(q_means_at + (head * windows + window) * HEAD_DIM + dims, mean)
            else:
                place = keys_at + head * k_head + ring_rows[:, None] * k_token
                tl.store(place + dims[None, :], x)
                tl.store(means_at + head * m_head + target_window * m_window + dims, mean)
