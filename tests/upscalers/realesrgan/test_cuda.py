"""The frame path on a CUDA device: its graph, and that nothing waits."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tests.upscalers.realesrgan.test_upscaler import frames, run, tiny_net  # noqa: E402

from streamlift.frames import Size  # noqa: E402
from streamlift.upscalers.realesrgan import RealESRGAN  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_a_captured_graph_gives_what_the_eager_net_gives() -> None:
    device = torch.device("cuda:0")
    size, given = Size(64, 48), [f.to(device) for f in frames(4, Size(64, 48))]
    eager, graph = (
        RealESRGAN(tiny_net(), name="n", device=device, graph=graph) for graph in (False, True)
    )
    one, two = graph.open(size), graph.open(size)
    mixed = [next(session.push(f)) for f in given for session in (one, two)]

    for index, expected in enumerate(run(eager, given)):
        for found in mixed[2 * index : 2 * index + 2]:
            assert torch.allclose(found, expected, atol=2e-3)


def test_pushing_on_cuda_never_waits_for_the_device() -> None:
    device = torch.device("cuda:0")
    session = RealESRGAN(tiny_net(), name="n", device=device).open(Size(64, 64))
    given = [f.to(device) for f in frames(3, Size(64, 64))]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for lr in given:
            list(session.push(lr))
    finally:
        torch.cuda.set_sync_debug_mode("default")
