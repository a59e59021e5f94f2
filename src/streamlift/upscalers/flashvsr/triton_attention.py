"""Block-list attention as Triton kernels; `attention.attend_exact` is their plain-torch twin.

One program takes a query block of one head and walks that row's list with a running softmax. The
plain kernel needs nothing newer than sm_80. On Hopper (sm_90) keys and values come by tensor
descriptors (TMA), and a grid no larger than the card takes the rows longest first, since their
lengths differ. Import it only where triton is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamlift.upscalers.cards import (
    LARGE_SHARED,
    capability,
    emulated,
    multiprocessors,
    shared_limit,
)
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.config import WINDOW_TOKENS

__all__ = [
    "CONFIGURATIONS",
    "Configuration",
    "attend_persistent",
    "attend_plain",
    "attend_triton",
    "block_list_attention",
    "launch_options",
    "longest_first",
    "persistent_attention",
]

_LOG2_E = 1.4426950408889634


@dataclass(frozen=True, slots=True)
class Configuration:
    """Keys at once, pipeline stages, and the most registers of a thread (None: as it comes)."""

    keys: int
    stages: int
    registers: int | None = None

    @property
    def blocks_a_multiprocessor(self) -> int:
        """256 threads of 128 registers are half of a multiprocessor's."""
        return 2 if self.registers is not None and self.registers <= 128 else 1


CONFIGURATIONS = (
    Configuration(64, 2, 128),
    Configuration(64, 3),
    Configuration(128, 2),
    Configuration(64, 2),
)
"""Of the kernel for Hopper, chosen by hand; the first until a card said otherwise."""


def attend_triton(q: Tensor, k: Tensor, v: Tensor, blocks: BlockLists) -> Tensor:
    """See the contract in `attention`; head_dim must be a power of two, 16 or more."""
    if q.is_cuda and q.dtype is not torch.float32 and capability(q.device)[0] == 9:
        return attend_persistent(q, k, v, blocks)
    return attend_plain(q, k, v, blocks)


def attend_plain(q: Tensor, k: Tensor, v: Tensor, blocks: BlockLists) -> Tensor:
    """The kernel for any card."""
    heads, tokens, head_dim = q.shape
    q, k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (q, k, v))
    count, index = blocks.count.contiguous(), blocks.index.contiguous()
    out = _by_token(q)
    options = launch_options(head_dim, q.dtype, shared_limit(q.device))
    block_list_attention[(tokens // options["QUERIES"], heads)](
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
        **options,
    )
    return out


def attend_persistent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: BlockLists,
    configuration: Configuration = CONFIGURATIONS[0],
) -> Tensor:
    """The kernel for Hopper; heads of k and v may lie further apart than there are keys."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    heads, _, head_dim = q.shape
    q, k, v = q.contiguous(), _dense_tokens(k), _dense_tokens(v)
    count, index = blocks.count.contiguous(), blocks.index.contiguous()
    out = _by_token(q)
    rows = count.shape[1]
    order = longest_first(count)

    def described(x: Tensor, rows_at_once: int) -> Any:
        # One long list of tokens; a head begins every `x.stride(0)` elements.
        long = (x.shape[0] - 1) * (x.stride(0) // head_dim) + x.shape[1]
        return TensorDescriptor(x, [long, head_dim], [head_dim, 1], [rows_at_once, head_dim])

    options = {"maxnreg": configuration.registers} if configuration.registers else {}
    programs = multiprocessors(q.device) * configuration.blocks_a_multiprocessor
    persistent_attention[(min(programs, heads * rows),)](
        described(q, WINDOW_TOKENS),
        described(k, configuration.keys),
        described(v, configuration.keys),
        out,
        order,
        count,
        index,
        k.stride(0) // head_dim,
        v.stride(0) // head_dim,
        *out.stride()[:2],
        rows,
        index.shape[2],
        heads * rows,
        head_dim**-0.5 * _LOG2_E,
        HEAD_DIM=head_dim,
        BLOCK=WINDOW_TOKENS,
        KEYS=configuration.keys,
        EMULATED=emulated(),
        num_warps=8,
        num_stages=configuration.stages,
        **options,
    )
    return out


def longest_first(count: Tensor) -> Tensor:
    """Rows (heads * query blocks) by falling count, int32, in one launch."""
    rows = count.numel()
    order = torch.empty(rows, dtype=torch.int32, device=count.device)
    order_kernel[(1,)](count, order, rows, WIDTH=triton.next_power_of_2(rows), num_warps=8)
    return order


def launch_options(
    head_dim: int, dtype: torch.dtype, shared_limit: int = LARGE_SHARED
) -> dict[str, Any]:
    """Compile-time constants of the plain kernel for a head size, number format and card."""
    wide, large = dtype is torch.float32, shared_limit >= LARGE_SHARED
    if wide:
        # Without matrix instructions every operand is a register: a smaller tile, or it spills.
        queries, keys, stages = 64, 16, 1
    else:
        queries, keys, stages = (WINDOW_TOKENS, 64, 3) if large else (WINDOW_TOKENS, 32, 2)
    return {
        "HEAD_DIM": head_dim,
        "BLOCK": WINDOW_TOKENS,
        "QUERIES": queries,
        "KEYS": keys,
        "EMULATED": emulated(),
        "PRECISION": "ieee" if wide else "tf32",
        "num_warps": 8,
        "enable_fp_fusion": True,
        "num_stages": stages,
    }


def _by_token(q: Tensor) -> Tensor:
    """Room for the result, heads of a token side by side: what follows takes it without a copy."""
    heads, tokens, head_dim = q.shape
    return torch.empty((tokens, heads, head_dim), dtype=q.dtype, device=q.device).transpose(0, 1)


def _dense_tokens(x: Tensor) -> Tensor:
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def order_kernel(count_at, order_at, rows, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Grid (1,). Count and row share a number, so that sorting one sorts the other."""
    row = tl.arange(0, WIDTH)
    count = tl.load(count_at + row, row < rows, -1).to(tl.int64)
    pairs = tl.sort(count * WIDTH + row, descending=True)
    tl.store(order_at + row, (pairs % WIDTH).to(tl.int32), row < rows)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def persistent_attention(  # type: ignore[no-untyped-def]
    q_from,
    k_from,
    v_from,
    out_at,
    order_at,
    count_at,
    index_at,
    k_head,
    v_head,
    out_head,
    out_token,
    rows,
    columns,
    items,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    KEYS: tl.constexpr,
    EMULATED: tl.constexpr,
):
    """Grid (programs,), each with every so many items. q_from, k_from, v_from are descriptors."""
    dims = tl.arange(0, HEAD_DIM)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        which = tl.load(order_at + item)
        head = which // rows
        row = which % rows
        q = q_from.load([which * BLOCK, 0])
        count = tl.load(count_at + which)
        listed = index_at + which.to(tl.int64) * columns
        top = tl.full((BLOCK,), -float("inf"), tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        mixed = tl.zeros((BLOCK, HEAD_DIM), tl.float32)
        for step in range(count * (BLOCK // KEYS)):
            block = tl.load(listed + step // (BLOCK // KEYS))
            first = block * BLOCK + step % (BLOCK // KEYS) * KEYS
            k = k_from.load([head * k_head + first, 0])
            if EMULATED:
                q, k = q.to(tl.float32), k.to(tl.float32)
            scores = tl.dot(q, k.T) * scale_log2
            higher = tl.maximum(top, tl.max(scores, 1))
            weights = tl.exp2(scores - higher[:, None])
            shrink = tl.exp2(top - higher)
            total = total * shrink + tl.sum(weights, 1)
            mixed = mixed * shrink[:, None]
            v = v_from.load([head * v_head + first, 0])
            weights = weights.to(v.dtype)
            if EMULATED:
                weights, v = weights.to(tl.float32), v.to(tl.float32)
            mixed = tl.dot(weights, v, mixed)
            top = higher
        # A row without any key block gives zeros.
        mixed = mixed / tl.where(total > 0, total, 1.0)[:, None]
        tokens = (row * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
        target = out_at + head.to(tl.int64) * out_head + tokens[:, None] * out_token + dims[None, :]
        tl.store(target, mixed.to(out_at.dtype.element_ty))


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
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    EMULATED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid (groups of QUERIES, heads). Softmax in base 2, sums in float32."""
    row = tl.program_id(0) * QUERIES // BLOCK
    head = tl.program_id(1).to(tl.int64)
    tokens = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    dims = tl.arange(0, HEAD_DIM)
    q = tl.load(q_at + head * q_head + tokens[:, None] * q_token + dims[None, :])
    count = tl.load(count_at + head * rows + row)
    listed = index_at + (head * rows + row) * columns

    top = tl.full((QUERIES,), -float("inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    mixed = tl.zeros((QUERIES, HEAD_DIM), tl.float32)
    for step in range(count * (BLOCK // KEYS)):
        block = tl.load(listed + step // (BLOCK // KEYS))
        first = block * BLOCK + step % (BLOCK // KEYS) * KEYS
        keys = first + tl.arange(0, KEYS)
        k = tl.load(k_at + head * k_head + keys[None, :] * k_token + dims[:, None])
        v = tl.load(v_at + head * v_head + keys[:, None] * v_token + dims[None, :])
        if EMULATED:
            q, k = q.to(tl.float32), k.to(tl.float32)
        scores = tl.dot(q, k, input_precision=PRECISION) * scale_log2
        higher = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(weights, 1)
        mixed = mixed * shrink[:, None]
        weights = weights.to(v.dtype)
        if EMULATED:
            weights, v = weights.to(tl.float32), v.to(tl.float32)
        mixed = tl.dot(weights, v, mixed, input_precision=PRECISION)
        top = higher
    # A row without any key block gives zeros.
    mixed = mixed / tl.where(total > 0, total, 1.0)[:, None]
    target = out_at + head * out_head + tokens[:, None] * out_token + dims[None, :]
    tl.store(target, mixed.to(out_at.dtype.element_ty))
