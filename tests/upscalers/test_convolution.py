"""The convolution with all around it: twin against torch, kernel against twin, compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.upscalers.kernels import NUMBERS, SHARED_LIMIT, compile_for, interpret
from torch.nn import functional as F

from streamlift.upscalers.convolution import (
    conv3x3,
    enlarging_conv,
    fold_enlargement,
    pack_taps,
)

_COMPARE = """
from streamlift.upscalers import convolution, convolution_triton

g = torch.Generator().manual_seed(1)

def random(*shape):
    return torch.randn(shape, generator=g)

def last(x):
    return x.to(memory_format=torch.channels_last)

for dtype, tol in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
    for c1, c2, outputs, shifted, scales, slope in (
        (20, 7, 5, True, None, 0.0),  # odd counts, a decoder's block
        (24, 0, 8, False, [0.2, 0.2], 1.0),  # the end of a dense block
        (5, 3, 3, False, None, 0.2),
    ):
        # Slices of channels of one larger buffer, as in a dense block.
        buffer = last(random(2, c1 + outputs + 3, 5, 9)).to(dtype)
        x, target = buffer[:, :c1], buffer[:, c1 + 1 : c1 + 1 + outputs]
        second = last(random(2, c2, 5, 9)).to(dtype) if c2 else None
        before = last(random(1, c2, 5, 9)).to(dtype) if shifted else None
        weight = (random(9, c1 + c2, outputs) * 0.1).to(dtype)
        bias = random(outputs).to(dtype)
        residuals = [last(random(2, outputs, 5, 9)).to(dtype) for _ in scales or [0]]
        rest = (second, before, slope, residuals[0], (residuals + [None])[1], scales)
        plain = buffer.clone(memory_format=torch.preserve_format)
        expected = torch.empty_like(target)
        convolution.conv3x3(x, weight, bias, expected, *rest)
        convolution_triton.conv3x3(x, weight, bias, target, *rest)
        torch.testing.assert_close(target, expected, atol=tol, rtol=tol)
        plain[:, c1 + 1 : c1 + 1 + outputs] = target
        assert torch.equal(plain, buffer)  # and nothing beside it is written
    weight = (random(2, 2, 2, 4, 6, 10) * 0.1).to(dtype)
    x = last(random(3, 6, 3, 5)).to(dtype)
    found = [last(random(6, 10, 6, 10)).to(dtype) for _ in "ab"]
    for module, out in zip((convolution, convolution_triton), found):
        module.enlarging_conv(x, weight, None, out, 0.2)
    torch.testing.assert_close(found[1], found[0], atol=tol, rtol=tol)
"""


def test_a_folded_enlargement_equals_the_three_layers_it_is_made_of() -> None:
    generator = torch.Generator().manual_seed(4)
    grow = torch.randn(6, 5, 1, 1, generator=generator, dtype=torch.float64)
    conv = torch.randn(4, 3, 3, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 5, 4, 7, generator=generator, dtype=torch.float64)
    steps = torch.unflatten(F.conv2d(x, grow), 1, (2, 3)).flatten(0, 1)
    expected = F.conv2d(F.interpolate(steps, scale_factor=2, mode="nearest"), conv, padding=1)
    found = torch.empty_like(expected)
    enlarging_conv(x, fold_enlargement(conv, grow, 2), None, found)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    single = F.conv2d(F.interpolate(x[:, :3], scale_factor=2), conv, padding=1)
    enlarging_conv(x[:, :3], fold_enlargement(conv), None, found[:2])
    torch.testing.assert_close(found[:2], single, atol=1e-12, rtol=0)


def test_the_twin_is_a_convolution_with_its_epilogue() -> None:
    generator = torch.Generator().manual_seed(5)
    x, second, before = (torch.randn(n, 3, 4, 5, generator=generator) for n in (2, 2, 1))
    kernel, bias = torch.randn(6, 6, 3, 3, generator=generator), torch.randn(6)
    residual, out = torch.randn(2, 6, 4, 5, generator=generator), torch.empty(2, 6, 4, 5)
    seen = torch.cat((x, torch.cat((before, second[:1]))), 1)
    expected = F.relu(F.conv2d(seen, kernel, bias, padding=1) + residual)
    conv3x3(x, pack_taps(kernel), bias, out, second, before, 0.0, residual)
    torch.testing.assert_close(out, expected)


def test_the_kernel_equals_its_twin_in_the_interpreter() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    interpret(_COMPARE)


@pytest.mark.parametrize("capability", [90, 120])
@pytest.mark.parametrize(
    ("channels", "outputs", "side", "dtype"),
    [
        ((128, 128), 128, 3, torch.bfloat16),
        ((128, 0), 128, 2, torch.bfloat16),
        ((160, 0), 32, 3, torch.float16),
        ((128, 0), 3, 3, torch.bfloat16),
    ],
)
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_the_kernel_compiles_for_cards_that_are_not_here_and_spills_nothing(
    channels: tuple[int, int], outputs: int, side: int, dtype: torch.dtype, capability: int
) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    from streamlift.upscalers.convolution_triton import conv_kernel, launch_options

    constants: dict[str, Any] = launch_options(outputs, dtype)
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages")}
    constants |= {"C1": channels[0], "C2": channels[1], "OUT": outputs, "SIDE": side}
    constants |= {"PHASES": 8 if side == 2 else 1, "SHIFTED": channels[1] > 0, "BIASED": True}
    constants |= {"RESIDUALS": 1, "SCALED": outputs == 32, "SLOPED": True}
    constants |= {"PRECISION": "tf32", "EMULATED": False}
    pointers = ("x", "second", "before", "weight", "bias", "out", "first", "last")
    signature = dict.fromkeys((f"{name}_at" for name in pointers), NUMBERS[dtype])
    signature |= dict.fromkeys(("slope", "first_scale", "last_scale"), "fp32")
    made = compile_for(conv_kernel, capability, signature, constants, options)
    assert made.stack_bytes == 0
    assert made.shared_bytes <= SHARED_LIMIT[capability]
    assert made.registers * 32 * options["num_warps"] <= 65536
    assert ("wgmma" if capability == 90 else "mma.sync") in made.ptx
