"""What only a CUDA device can show: its graph, compiling, 8-bit products and bfloat16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from streamlift.frames import Size
from streamlift.upscalers.swiftvr.fp8 import Fp8Linear
from streamlift.upscalers.swiftvr.tiny import create_tiny_random

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize(
    "settings", [{}, {"graph": True}, {"graph": True, "overlap": 1}, {"compile": True}]
)
def test_the_device_gives_the_frames_of_the_cpu(settings: dict[str, Any]) -> None:
    common = {"precision": "float32", "overlap": settings.get("overlap", 0)}
    expected, found = _stream("cpu", common), _stream("cuda", {**common, **settings})
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_two_streams_with_graphs_share_working_memory_but_no_picture() -> None:
    upscaler = create_tiny_random("cuda", {"graph": True, "start": "full"})
    videos = [_video(24, seed) for seed in (1, 2)]
    sessions = [upscaler.open(Size(64, 64)) for _ in videos]
    found: list[list[Tensor]] = [[], []]
    for frames in zip(*videos, strict=True):
        for session, frame, out in zip(sessions, frames, found, strict=True):
            out += list(session.push(frame))
    for video, out in zip(videos, found, strict=True):
        session = upscaler.open(Size(64, 64))
        alone = [group for frame in video for group in session.push(frame)]
        assert torch.equal(torch.cat(out), torch.cat(alone))


def test_8_bit_products_equal_their_plain_twin() -> None:
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("8-bit products need compute capability 8.9")
    layer = nn.Linear(256, 128)
    x = torch.randn(64, 256).bfloat16()
    plain = Fp8Linear(layer.bfloat16())
    with torch.inference_mode():
        expected, found = plain(x), Fp8Linear(layer.cuda())(x.cuda()).cpu()
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)


def _video(frames: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(frames, 1, 3, 64, 64, generator=generator)


def _stream(device: str, settings: dict[str, Any]) -> Tensor:
    video = _video(30, seed=2)
    session = create_tiny_random(device, settings).open(Size(64, 64))
    groups = [group.cpu() for frame in video for group in session.push(frame)]
    return torch.cat([*groups, *(group.cpu() for group in session.finish())])
