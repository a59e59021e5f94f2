"""The block choice as one Triton launch; `selection.choose_blocks` with lists is its twin.

A program takes one head and query unit: scores and shares of all rows go to scratch memory that
stays in cache, the threshold is found by bisection on the bits of the floats (positive floats
order as their bits do, so 31 steps find the exact value), and each row's list is written by a
running count. Import it only where triton is installed.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["choose_kernel", "choose_lists", "launch_options"]

_ROWS, _KEYS = 16, 32
"""Query and key windows of one small matrix product."""
_TILE = 4096
_ENTRIES = 16384
"""Shares that a program of 512 threads can hold: 1024 x 1024 pixels and four units."""


def choose_lists(
    q_means: Tensor, k_means: Tensor, allowed: Tensor, topk: int
) -> tuple[Tensor, Tensor]:
    """See `fused.choose_lists`; head_dim must be a power of two, 16 or more."""
    heads, queries, dim = q_means.shape
    keys, windows = k_means.shape[1], allowed.shape[0]
    q_means, k_means = q_means.contiguous(), _rows_dense(k_means)
    new = q_means.new_empty
    shares = new((heads, queries, keys), dtype=torch.float32)
    count = new((heads, queries), dtype=torch.int32)
    index = new((heads, queries, keys), dtype=torch.int32)
    choose_kernel[(queries // windows, heads)](
        q_means,
        k_means,
        allowed.contiguous().view(torch.uint8),
        shares,
        count,
        index,
        k_means.stride(0),
        queries,
        keys,
        windows,
        min(windows * keys - 1, topk),
        dim**0.5,
        **launch_options(dim, windows, keys),
    )
    return count, index


def launch_options(dim: int, windows: int, keys: int) -> dict[str, Any]:
    """Compile-time constants for a head size, and for the windows of a unit and of the ring."""
    wide = triton.next_power_of_2(max(keys, 16))
    entries = triton.next_power_of_2(windows * keys)
    return {
        "DIM": dim,
        "ROWS": _ROWS,
        "KEYS": _KEYS,
        "WIDE": wide,
        "ROWS_AT_ONCE": max(1, _TILE // wide),
        # Up to the published size all shares of a unit stay in registers.
        "ENTRIES": min(entries, _ENTRIES),
        "HELD": entries <= _ENTRIES,
        "num_warps": 16,
    }


def _rows_dense(x: Tensor) -> Tensor:
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def choose_kernel(  # type: ignore[no-untyped-def]
    q_at,
    k_at,
    allowed_at,
    shares_at,
    count_at,
    index_at,
    k_head,
    queries,
    keys,
    windows,
    topk,
    root_dim,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS_AT_ONCE: tl.constexpr,
    ENTRIES: tl.constexpr,
    HELD: tl.constexpr,
):
    """Grid (query units, heads)."""
    unit = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    dims = tl.arange(0, DIM)
    first_row = head * queries + unit * windows
    shares = shares_at + first_row * keys
    for first in range(0, windows, ROWS):
        rows = first + tl.arange(0, ROWS)
        there = rows < windows
        q = tl.load(q_at + (first_row + rows)[:, None] * DIM + dims[None, :], there[:, None], 0.0)
        for first_key in range(0, keys, KEYS):
            columns = first_key + tl.arange(0, KEYS)
            inside = columns < keys
            k_place = k_at + head * k_head + columns[None, :] * DIM + dims[:, None]
            k = tl.load(k_place, inside[None, :], 0.0)
            scores = tl.dot(q, k, input_precision="ieee") / root_dim
            both = there[:, None] & inside[None, :]
            tl.store(shares + rows[:, None] * keys + columns[None, :], scores, both)
    tl.debug_barrier()  # all of it is read again, by other threads

    columns = tl.arange(0, WIDE)
    for first in range(0, windows, ROWS_AT_ONCE):
        rows = first + tl.arange(0, ROWS_AT_ONCE)
        both = (rows < windows)[:, None] & (columns < keys)[None, :]
        place = shares + rows[:, None] * keys + columns[None, :]
        seen = tl.load(allowed_at + rows[:, None] * windows + columns[None, :] % windows, both, 0)
        scores = tl.where(seen != 0, tl.load(place, both, 0.0), -float("inf"))
        top = tl.max(scores, 1)
        weights = tl.exp(scores - tl.where(rows < windows, top, 0.0)[:, None])
        total = tl.where(rows < windows, tl.sum(weights, 1), 1.0)
        tl.store(place, weights / total[:, None], both)
    tl.debug_barrier()

    # The largest value that more than topk entries reach is the (topk + 1)-th largest.
    entries = windows * keys
    low = tl.full((), 0, tl.int32)
    high = tl.full((), 0x3F800001, tl.int32)  # just above one
    at = tl.arange(0, ENTRIES)
    held = tl.load(shares + at, at < entries, -1.0).to(tl.int32, bitcast=True)
    for _ in range(31):
        middle = low + (high - low) // 2
        reached = tl.sum((held >= middle).to(tl.int32), 0)
        if not HELD:
            for first in range(ENTRIES, entries, ENTRIES):
                more = tl.load(shares + first + at, first + at < entries, -1.0)
                reached += tl.sum((more.to(tl.int32, bitcast=True) >= middle).to(tl.int32), 0)
        enough = reached > topk
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle)
    threshold = low.to(tl.float32, bitcast=True)

    for first in range(0, windows, ROWS_AT_ONCE):
        rows = first + tl.arange(0, ROWS_AT_ONCE)
        both = (rows < windows)[:, None] & (columns < keys)[None, :]
        part = tl.load(shares + rows[:, None] * keys + columns[None, :], both, 0.0)
        keep = both & (part > threshold)
        kept = keep.to(tl.int32)
        left = (both & (part <= threshold)).to(tl.int32)
        total = tl.sum(kept, 1)
        # As the twin orders them: the kept ones first, then the others, both ascending.
        after = total[:, None] + tl.cumsum(left, 1) - 1
        target = tl.where(keep, tl.cumsum(kept, 1) - 1, after)
        column = tl.zeros_like(target) + columns[None, :]
        tl.store(index_at + (first_row + rows)[:, None] * keys + target, column, both)
        tl.store(count_at + first_row + rows, total, rows < windows)
