"""The attention kernels: in Triton's interpreter against their twin, and compiled for cards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.upscalers.kernels import NUMBERS, SHARED_LIMIT, compile_for, interpret

pytest.importorskip("triton", reason="triton is not installed")

pytestmark = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")

_COMPARE = """
from streamlift.upscalers.flashvsr.attention import attend_exact
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.triton_attention import (
    Configuration, attend_persistent, attend_plain, longest_first,
)

def persistent(q, k, v, blocks):
    # Fewer programs than rows: each takes several.
    return attend_persistent(q, k, v, blocks, Configuration(64, 2))

for dtype, atol in ((torch.float32, 5e-6), (torch.bfloat16, 2e-2)):
    generator = torch.Generator().manual_seed(5)
    q = torch.randn(2, 3 * 128, 32, generator=generator).to(dtype)
    # A slice of a longer ring: heads lie further apart than there are keys.
    k, v = torch.randn(2, 2, 6 * 128, 32, generator=generator).to(dtype)[:, :, : 5 * 128]
    mask = torch.rand(2, 3, 5, generator=generator) < 0.5
    mask[1, 0], mask[0, 2] = False, True
    blocks = BlockLists.from_mask(mask)
    expected = attend_exact(q.float(), k.float(), v.float(), blocks)
    for attend in (attend_plain, persistent):
        found = attend(q, k, v, blocks)
        torch.testing.assert_close(found.float(), expected, atol=atol, rtol=0)
        assert not found[1, :128].any()
        # Heads of a token side by side: the next layer takes it without a copy.
        assert found.transpose(0, 1).flatten(1).data_ptr() == found.data_ptr()
order = longest_first(torch.tensor([[3, 0, 7], [7, 1, 2]], dtype=torch.int32))
assert order.tolist() in ([3, 2, 0, 5, 4, 1], [2, 3, 0, 5, 4, 1])
"""


def test_the_kernels_equal_their_twin_in_the_interpreter() -> None:
    interpret(_COMPARE)


@pytest.mark.parametrize(
    ("dtype", "capability"),
    [
        (torch.bfloat16, 90),
        (torch.float32, 90),
        (torch.bfloat16, 89),
        (torch.bfloat16, 120),
        (torch.float32, 120),
    ],
)
def test_the_plain_kernel_fits_every_card(dtype: torch.dtype, capability: int) -> None:
    from streamlift.upscalers.flashvsr.triton_attention import block_list_attention, launch_options

    limit = SHARED_LIMIT[capability]
    options: dict[str, Any] = launch_options(128, dtype, limit)
    constants = {
        n: options.pop(n) for n in ("HEAD_DIM", "BLOCK", "QUERIES", "KEYS", "EMULATED", "PRECISION")
    }
    signature = dict.fromkeys(("q_at", "k_at", "v_at", "out_at"), NUMBERS[dtype])
    signature |= {"count_at": "*i32", "index_at": "*i32", "scale_log2": "fp32"}
    made = compile_for(block_list_attention, capability, signature, constants, options)
    assert made.shared_bytes <= limit
    assert made.stack_bytes == 0
    assert made.registers * 32 * options["num_warps"] <= 65536
    if dtype is torch.bfloat16:
        assert ("wgmma" if capability == 90 else "mma.sync") in made.ptx


@pytest.mark.parametrize("number", range(4))
def test_the_kernel_for_hopper_uses_its_instructions_and_spills_nothing(number: int) -> None:
    from streamlift.upscalers.flashvsr.triton_attention import CONFIGURATIONS, persistent_attention

    one = CONFIGURATIONS[number]
    signature = {
        "q_from": "tensordesc<bf16[128, 128]>",
        "k_from": f"tensordesc<bf16[{one.keys}, 128]>",
        "v_from": f"tensordesc<bf16[{one.keys}, 128]>",
        "out_at": "*bf16",
        "scale_log2": "fp32",
        **dict.fromkeys(("order_at", "count_at", "index_at"), "*i32"),
    }
    constants = {"HEAD_DIM": 128, "BLOCK": 128, "KEYS": one.keys, "EMULATED": False}
    options = {"num_warps": 8, "num_stages": one.stages}
    if one.registers:
        options["maxnreg"] = one.registers
    made = compile_for(persistent_attention, 90, signature, constants, options)
    assert "wgmma.mma_async" in made.ptx
    assert "cp.async.bulk.tensor" in made.ptx  # by descriptor
    assert made.shared_bytes * one.blocks_a_multiprocessor <= SHARED_LIMIT[90]
    assert made.registers * 256 * one.blocks_a_multiprocessor <= 65536
    assert made.stack_bytes == 0
