"""Block-sparse attention over lists of 128 x 128 blocks: the contract, and its implementations.

Contract: q (H, Tq, d); k, v (H, Tk, d); for each head and query block a count and the indices of
the key blocks it attends. All pairs inside a listed block count, scale is d ** -0.5, and a query
block without any key block gives zeros. Every implementation gives the same for the same lists.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import types
from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import Any

import torch
from torch import Tensor

from streamlift.errors import NotReady, UpscaleError
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.config import WINDOW_TOKENS

__all__ = ["Attend", "AttentionKind", "FlexAttention", "attend_exact", "attend_flex", "attention"]

_log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 8
"""Query blocks gathered together: bounds the memory of the exact form at full size."""


Attend = Callable[[Tensor, Tensor, Tensor, BlockLists], Tensor]


class AttentionKind(StrEnum):
    """Implementations by name; AUTO is our Triton kernel on CUDA and the exact form elsewhere."""

    AUTO = "auto"
    EXACT = "exact"
    FLEX = "flex"
    TRITON = "triton"


def attention(kind: AttentionKind, device: torch.device) -> Attend:
    """The implementation to use on a device. Raises NotReady if it needs a missing package."""
    if kind is AttentionKind.AUTO and device.type == "cuda":
        kind = AttentionKind.TRITON
        if importlib.util.find_spec("triton") is None:
            _log.warning("no module triton: FlashVSR's attention is FlexAttention, and slower")
            kind = AttentionKind.FLEX
    if kind is AttentionKind.FLEX:
        return attend_flex
    if kind is AttentionKind.TRITON:
        return _triton()
    return attend_exact


def attend_exact(q: Tensor, k: Tensor, v: Tensor, blocks: BlockLists) -> Tensor:
    """The definition in plain torch, head by head and a few query blocks at a time."""
    out = torch.zeros_like(q)
    queries = torch.unflatten(q, 1, (-1, WINDOW_TOKENS))
    keys = torch.unflatten(k, 1, (-1, WINDOW_TOKENS))
    values = torch.unflatten(v, 1, (-1, WINDOW_TOKENS))
    target = torch.unflatten(out, 1, (-1, WINDOW_TOKENS))
    for head in range(q.shape[0]):
        for first in range(0, queries.shape[1], _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            count, index = blocks.count[head, rows], blocks.index[head, rows]
            target[head, rows] = _attend_rows(
                queries[head, rows], keys[head], values[head], count, index
            )
    return out


def attend_flex(q: Tensor, k: Tensor, v: Tensor, blocks: BlockLists) -> Tensor:
    """FlexAttention with the lists as full blocks, so that nothing is masked inside one."""
    return _flex(q.device.type)(q, k, v, blocks)


class FlexAttention:
    """FlexAttention, compiled once for each shape of its inputs; `compiler` None runs it plainly.

    torch compiles one piece of code for eight shapes and then runs it uncompiled, where the
    compiled form's lists mean nothing and every block would be attended. So each shape here has a
    copy of the code, `fullgraph` makes the limit an error, and what runs uncompiled raises.
    """

    KEPT = 32
    """Shapes; the one used longest ago is forgotten, and compiled again if it comes back."""

    def __init__(self, compiler: Callable[..., Any] | None) -> None:
        self._compiler = compiler
        self._by_shape: OrderedDict[object, Any] = OrderedDict()
        self._made = 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, blocks: BlockLists) -> Tensor:
        """See the contract in this file. Raises UpscaleError where it would run uncompiled."""
        from torch.nn.attention.flex_attention import BlockMask

        known = inspect.signature(BlockMask.from_kv_blocks).parameters
        # torch 2.6 always makes the lists for gradients.
        forward_only = {"compute_q_blocks": False} if "compute_q_blocks" in known else {}
        used = blocks.index[None]
        plain = self._compiler is None
        mask = BlockMask.from_kv_blocks(
            torch.zeros_like(blocks.count)[None],
            used,
            full_kv_num_blocks=blocks.count[None],
            full_kv_indices=used,
            BLOCK_SIZE=WINDOW_TOKENS,
            mask_mod=_inside(blocks) if plain else None,
            seq_lengths=(q.shape[1], k.shape[1]),
            **forward_only,  # type: ignore[arg-type]
        )
        flex = _flex_plain if plain else self._for_shape(q, k)
        out: Tensor = flex(q[None], k[None], v[None], mask)[0]
        return out

    def _for_shape(self, q: Tensor, k: Tensor) -> Any:
        assert self._compiler is not None
        shape = (q.shape, k.shape, k.stride(), q.dtype, q.device)
        if shape not in self._by_shape:
            # Code of another name is other code, by equality too.
            self._made += 1
            code = _flex_compiled.__code__.replace(co_name=f"_flex_compiled_{self._made}")
            own = types.FunctionType(code, globals(), code.co_name)
            self._by_shape[shape] = self._compiler(own, dynamic=False, fullgraph=True)
            if len(self._by_shape) > self.KEPT:
                self._by_shape.popitem(last=False)
        self._by_shape.move_to_end(shape)
        return self._by_shape[shape]


def _flex_compiled(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Any:
    if not torch.compiler.is_compiling():
        raise UpscaleError(
            "FlexAttention would run uncompiled and attend every block; use attention `triton`",
            found="uncompiled",
            expected="a compiled kernel",
        )
    return _flex_plain(q, k, v, mask)


def _flex_plain(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention(q, k, v, block_mask=mask)


def _inside(blocks: BlockLists) -> Callable[..., Tensor]:
    """The mask by position: the uncompiled form asks it, the compiled one walks the lists."""
    keep = blocks.to_mask()

    def inside_kept_block(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return keep[h, q_idx // WINDOW_TOKENS, kv_idx // WINDOW_TOKENS]

    return inside_kept_block


def _attend_rows(q: Tensor, k: Tensor, v: Tensor, count: Tensor, index: Tensor) -> Tensor:
    """q (r, 128, d); k, v (K, 128, d); count (r,); index (r, K) -> (r, 128, d)."""
    width = int(count.max())
    if width == 0:
        return torch.zeros_like(q)
    listed = index[:, :width].long()
    keys = k[listed].flatten(1, 2)  # (r, width * 128, d)
    values = v[listed].flatten(1, 2)
    unused = torch.arange(width, device=q.device) >= count[:, None]
    scores = q @ keys.transpose(1, 2) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(unused.repeat_interleave(WINDOW_TOKENS, 1)[:, None], -torch.inf)
    mixed: Tensor = scores.softmax(-1) @ values
    return mixed.masked_fill((count == 0)[:, None, None], 0.0)


def _triton() -> Attend:
    if importlib.util.find_spec("triton") is None:
        raise NotReady(
            "FlashVSR attention `triton` needs the package triton",
            found="no module triton",
            expected="triton, or attention `flex`",
        )
    from streamlift.upscalers.flashvsr.triton_attention import attend_triton

    return attend_triton


@cache
def _flex(device_type: str) -> FlexAttention:
    return FlexAttention(torch.compile if device_type == "cuda" else None)
