"""What only a CUDA device can show: its attention kernels, graphs and bfloat16 against float32."""

from __future__ import annotations

import pytest
import torch

from streamlift.frames import Size
from streamlift.upscalers.flashvsr.attention import AttentionKind, attend_exact, attention
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.tiny import create_tiny_random

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("kind", [AttentionKind.FLEX, AttentionKind.TRITON])
def test_a_kernel_equals_the_exact_form_on_the_same_lists(kind: AttentionKind) -> None:
    generator = torch.Generator("cuda").manual_seed(1)
    ring = torch.randn(2, 4, 10 * 128, 128, generator=generator, device="cuda")
    k, v = ring[:, :, : 8 * 128].bfloat16()
    q = torch.randn(4, 3 * 128, 128, generator=generator, device="cuda").bfloat16()
    keep = torch.rand(4, 3, 8, generator=generator, device="cuda") < 0.5
    keep[2, 1] = False
    blocks = BlockLists.from_mask(keep)
    expected = attend_exact(q.float(), k.float(), v.float(), blocks)
    found = attention(kind, q.device)(q, k, v, blocks).float()
    assert float((found - expected).norm() / expected.norm()) < 5e-3
    assert not found[2, 128:256].any()


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
