"""The DiT's fused passes and the block choice: kernels against twins, and compiled for Hopper."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.upscalers.kernels import SHARED_LIMIT, compile_for, interpret

from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.fused import choose_lists, layer_norm, linear_gelu
from streamlift.upscalers.flashvsr.selection import choose_blocks

pytest.importorskip("triton", reason="triton is not installed")

_PASSES = """
from streamlift.upscalers.flashvsr import fused, fused_triton

g = torch.Generator().manual_seed(1)
for dtype, tol in ((torch.float32, 3e-6), (torch.bfloat16, 2e-2)):
    x = torch.randn(7, 96, generator=g).to(dtype)
    offset = torch.randn(96, generator=g)
    for centred in (True, False):
        found = fused_triton.row_norm(x, offset, 1e-6, centred=centred)
        twin = fused.layer_norm if centred else fused.rms_norm
        expected = twin(x, offset if centred else offset.to(dtype), 1e-6)
        torch.testing.assert_close(found, expected, atol=tol, rtol=tol)
    heads, d, slots, windows = 3, 32, 3, 2
    tokens = windows * 128
    qkv = torch.randn(tokens, 3 * heads * d, generator=g).to(dtype)
    weights = (1 + torch.randn(2, heads * d, generator=g) * 0.1).to(dtype)
    angles = torch.rand(tokens, d // 2, generator=g) * 6
    found = []
    for run in (fused.qkv_into_ring, fused_triton.qkv_into_ring):
        # One layer of a longer ring, at its last slot; the others stay as they were.
        keys, values = torch.zeros(2, 2, heads, slots * tokens, d, dtype=dtype)
        means = torch.zeros(2, heads, slots * windows, d)
        ring = (keys[1], values[1], means[1])
        slot = torch.tensor(2)
        made = run(qkv, *weights, angles.cos(), angles.sin(), *ring, slot, slots, 1e-6)
        found.append((*made, keys, values, means))
    for expected, other in zip(*found):
        torch.testing.assert_close(other, expected, atol=tol, rtol=tol)
"""

_CHOICE = """
from streamlift.upscalers.flashvsr import choice_triton
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.selection import choose_blocks

g = torch.Generator().manual_seed(2)
choice_triton._TILE = 64  # a few rows at once, as at full size
for entries, cases in (
    (16384, ((1, 3, 1), (3, 2, 5), (5, 4, 1), (5, 4, 10**6))),
    (256, ((20, 3, 700),)),  # shares that are not held in registers
):
    choice_triton._ENTRIES = entries
    for windows, units, topk in cases:
        q = torch.randn(2, 2 * windows, 32, generator=g)
        k = torch.randn(2, 2, units * windows, 32, generator=g)[1]
        k[0, -1] = k[0, 0]  # equal keys: shares that tie
        k[1] = k[1, :1]  # nothing but ties: none is kept, or all
        allowed = (torch.rand(windows, windows, generator=g) < 0.7) | torch.eye(windows).bool()
        expected = BlockLists.from_mask(choose_blocks(q, k, allowed, topk))
        count, index = choice_triton.choose_lists(q, k, allowed, topk)
        assert torch.equal(count, expected.count)
        assert torch.equal(index, expected.index)
        assert windows < 3 or topk > 1 or bool((count == 0).any())
"""

B, F = "*bf16", "*fp32"


def test_the_passes_equal_their_twins_in_the_interpreter() -> None:
    interpret(_PASSES)


def test_the_choice_equals_its_twin_with_ties_and_empty_rows_and_topk_at_both_ends() -> None:
    interpret(_CHOICE)


def _norm() -> tuple[Any, ...]:
    from streamlift.upscalers.flashvsr.fused_triton import row_norm_kernel

    signature = {"x_at": B, "vector_at": F, "out_at": B, "eps": "fp32"}
    constants = {"DIM": 1536, "WIDTH": 2048, "ROWS": 4, "CENTRED": True}
    return row_norm_kernel, signature, constants, {"num_warps": 4}


def _qkv() -> tuple[Any, ...]:
    from streamlift.upscalers.flashvsr.fused_triton import qkv_ring_kernel

    names = ("qkv_at", "norm_q_at", "norm_k_at", "q_at", "keys_at", "values_at")
    signature = dict.fromkeys(names, B) | {"slot_at": "*i64", "eps": "fp32"}
    signature |= dict.fromkeys(("cos_at", "sin_at", "q_means_at", "means_at"), F)
    return (
        qkv_ring_kernel,
        signature,
        {"HEADS": 12, "HEAD_DIM": 128, "BLOCK": 128},
        {"num_warps": 8},
    )


def _choice() -> tuple[Any, ...]:
    from streamlift.upscalers.flashvsr.choice_triton import choose_kernel, launch_options

    constants = launch_options(128, 64, 256)
    options = {"num_warps": constants.pop("num_warps")}
    signature = {"q_at": F, "k_at": F, "shares_at": F, "allowed_at": "*u8", "root_dim": "fp32"}
    return choose_kernel, signature | {"count_at": "*i32", "index_at": "*i32"}, constants, options


@pytest.mark.parametrize("capability", [90, 120])
@pytest.mark.parametrize("of", [_norm, _qkv, _choice])
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_the_kernels_compile_for_cards_that_are_not_here_and_spill_nothing(
    of: Any, capability: int
) -> None:
    kernel, signature, constants, options = of()
    made = compile_for(kernel, capability, signature, constants, options)
    assert made.stack_bytes == 0
    assert made.shared_bytes <= SHARED_LIMIT[capability]
    threads = 32 * options["num_warps"]
    assert made.registers * threads <= 65536


def test_the_twins_are_what_they_are_made_of() -> None:
    generator = torch.Generator().manual_seed(3)
    x, offset = torch.randn(5, 16, generator=generator), torch.randn(16, generator=generator)
    expected = torch.nn.functional.layer_norm(x + offset, (16,), eps=1e-6)
    torch.testing.assert_close(layer_norm(x, offset, 1e-6), expected)
    weight, bias = torch.randn(8, 16, generator=generator), torch.randn(8, generator=generator)
    up = torch.nn.functional.gelu(x @ weight.T + bias, approximate="tanh")
    torch.testing.assert_close(linear_gelu(x, weight, bias), up)
    q, k = torch.randn(2, 1, 4, 16, generator=generator)
    keep = choose_blocks(q, k, torch.ones(4, 4, dtype=torch.bool), 7)
    assert torch.equal(BlockLists(*choose_lists(q, k, keep[0] | True, 7)).to_mask(), keep)
