"""What only a CUDA device can show: its kernels against their twins, graphs, and that none waits.

On given masks wherever bits decide, for rounding flips blocks; TF32 is off in all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from streamlift.frames import Size
from streamlift.upscalers import convolution
from streamlift.upscalers.flashvsr import fused
from streamlift.upscalers.flashvsr.attention import AttentionKind, attend_exact, attention
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.tiny import create_tiny_random

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def _whole_float32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("kind", [AttentionKind.AUTO, AttentionKind.FLEX, AttentionKind.TRITON])
@pytest.mark.parametrize("queries", [3, 5])
def test_attention_equals_the_exact_form_on_the_same_lists(
    kind: AttentionKind, queries: int
) -> None:
    generator = torch.Generator("cuda").manual_seed(1)
    ring = torch.randn(2, 4, 10 * 128, 128, generator=generator, device="cuda")
    k, v = ring[:, :, : 8 * 128].bfloat16()
    q = torch.randn(4, queries * 128, 128, generator=generator, device="cuda").bfloat16()
    keep = torch.rand(4, queries, 8, generator=generator, device="cuda") < 0.5
    keep[2, 1] = False
    blocks = BlockLists.from_mask(keep)
    expected = attend_exact(q.float(), k.float(), v.float(), blocks)
    found = attention(kind, q.device)(q, k, v, blocks).float()
    assert float((found - expected).norm() / expected.norm()) < 5e-3
    assert not found[2, 128:256].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_passes_equal_their_twins(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    heads, d, slots = 12, 128, 4

    def random(*shape: int, kind: torch.dtype = dtype) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(kind)

    x, offset, eps = random(256, heads * d), random(heads * d, kind=torch.float32), 1e-6
    qkv, weights = random(256, 3 * heads * d), (random(heads * d), random(heads * d))
    angles = random(256, d // 2, kind=torch.float32)
    found: list[list[Any]] = []
    for device in ("cpu", "cuda"):
        keys, values = (torch.zeros(heads, slots * 256, d, dtype=dtype) for _ in range(2))
        means = torch.zeros(heads, slots * 2, d)
        ring = [one.to(device) for one in (keys, values, means)]
        at = torch.tensor(3, device=device)
        norms = [weight.to(device) for weight in weights]
        turn = [angles.cos().to(device), angles.sin().to(device)]
        made = fused.qkv_into_ring(qkv.to(device), *norms, *turn, *ring, at, slots, eps)
        normed = fused.layer_norm(x.to(device), offset.to(device), eps)
        found.append([*made, *ring, normed, fused.rms_norm(x.to(device), norms[0], eps)])
    tolerance = 1e-4 if dtype is torch.float32 else 5e-2
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(other.cpu(), expected, atol=tolerance, rtol=tolerance)


def test_the_choice_equals_its_twin_where_no_rounding_decides() -> None:
    # Whole numbers in means give the same scores on every device.
    generator = torch.Generator().manual_seed(3)
    q = torch.randint(-1, 2, (12, 64, 128), generator=generator).float()
    k = torch.randint(-1, 2, (12, 256, 128), generator=generator).float()
    allowed = torch.ones(64, 64, dtype=torch.bool)
    expected = BlockLists(*fused.choose_lists(q, k, allowed, 7679)).to_mask()
    found = BlockLists(*fused.choose_lists(q.cuda(), k.cuda(), allowed.cuda(), 7679)).to_mask()
    assert float((found.cpu() != expected).float().mean()) < 1e-3


@pytest.mark.parametrize("outputs", [3, 32, 128])
def test_convolutions_equal_their_twins(outputs: int) -> None:
    generator = torch.Generator().manual_seed(4)
    last = torch.channels_last

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).bfloat16().float()

    x, second, before = random(2, 64, 24, 40), random(2, 32, 24, 40), random(1, 32, 24, 40)
    weight, bias, residual = (
        random(9, 96, outputs) / 30,
        random(outputs),
        random(2, outputs, 24, 40),
    )
    expected = torch.empty(2, outputs, 24, 40)
    convolution.conv3x3(x, weight, bias, expected, second, before, 0.0, residual)
    there = [t.cuda().bfloat16() for t in (x, weight, bias, second, before, residual)]
    a, w, b, s, p, r = (t.to(memory_format=last) if t.ndim == 4 else t for t in there)
    found = torch.empty(2, outputs, 24, 40, device="cuda", dtype=torch.bfloat16)
    convolution.conv3x3(a, w, b, found, s, p, 0.0, r)
    assert float((found.cpu().float() - expected).norm() / expected.norm()) < 1e-2


@pytest.mark.parametrize("settings", [{}, {"graph": True}, {"compile": True}])
def test_the_device_gives_the_frames_of_the_cpu(settings: dict[str, bool]) -> None:
    video = torch.rand(50, 1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    outputs = []
    for device, more in (("cpu", {}), ("cuda", settings)):
        upscaler = create_tiny_random(device, {"precision": "float32", **more})
        session = upscaler.open(Size(64, 64))
        groups = [group.cpu() for frame in video for group in session.push(frame)]
        outputs.append(torch.cat([*groups, *(group.cpu() for group in session.finish())]))
    torch.testing.assert_close(outputs[1], outputs[0], atol=2e-3, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"graph": True}])
def test_a_whole_chunk_never_waits_for_the_device(settings: dict[str, bool]) -> None:
    session = create_tiny_random("cuda", settings).open(Size(64, 64))
    video = torch.rand(33, 1, 3, 64, 64, device="cuda")
    for frame in video[:17]:
        list(session.push(frame))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for frame in video[17:]:
            list(session.push(frame))
    finally:
        torch.cuda.set_sync_debug_mode("default")
