"""The Triton kernel: in Triton's interpreter against its twin, and compiled for Hopper."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed")

_COMPARE = """
import torch
from streamlift.upscalers.flashvsr.attention import attend_exact
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.triton_attention import attend_triton

for head_dim, share in ((32, 0.5), (128, 0.5), (32, 1.0)):
    generator = torch.Generator().manual_seed(head_dim)
    q = torch.randn(2, 2 * 128, head_dim, generator=generator)
    # A slice of a longer ring: heads lie further apart than there are keys.
    k, v = torch.randn(2, 2, 4 * 128, head_dim, generator=generator)[:, :, : 3 * 128]
    mask = torch.rand(2, 2, 3, generator=generator) < share
    mask[1, 0] = False
    blocks = BlockLists.from_mask(mask)
    found = attend_triton(q, k, v, blocks)
    torch.testing.assert_close(found, attend_exact(q, k, v, blocks), atol=5e-6, rtol=0)
    assert not found[1, :128].any()
"""


def test_the_kernel_equals_its_twin_in_the_interpreter() -> None:
    # Triton decides at its import whether it interprets, hence a process of its own.
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    run = subprocess.run(
        [sys.executable, "-c", _COMPARE], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("dtype", "capability"),
    [(torch.bfloat16, 90), (torch.float32, 90), (torch.bfloat16, 120)],
)
def test_the_kernel_compiles_for_cards_that_are_not_here(
    dtype: torch.dtype, capability: int
) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from streamlift.upscalers.flashvsr.triton_attention import (
        block_list_attention,
        launch_options,
    )

    kernel = block_list_attention
    options: dict[str, Any] = launch_options(128, dtype)
    constants = {n: options.pop(n) for n in ("HEAD_DIM", "BLOCK", "KEYS", "PRECISION")}
    number = "*bf16" if dtype is torch.bfloat16 else "*fp32"
    signature = dict.fromkeys(kernel.arg_names, "i32")
    signature |= dict.fromkeys(("q_at", "k_at", "v_at", "out_at"), number)
    signature |= {"count_at": "*i32", "index_at": "*i32", "scale_log2": "fp32"}
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature, constants)
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert len(binary.asm["cubin"]) > 0
