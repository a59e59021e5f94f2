"""Colour and the stabiliser on a CUDA device give what they give on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streamlift.engine.resample_torch import laid_out_levels  # noqa: E402
from streamlift.engine.stabilise_torch import TorchStabiliser  # noqa: E402
from streamlift.engine.yuv import (  # noqa: E402
    begin_download,
    pack_i420,
    planes_to_rgb,
    rgb_to_planes,
)
from streamlift.frames import Colour, Fit, Planes, Size, Stabilise  # noqa: E402
from streamlift.sizes import placed_in  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("full_range", [False, True])
def test_a_cuda_device_gives_what_the_cpu_gives(matrix: str, full_range: bool) -> None:
    colour = Colour(matrix, full_range=full_range)
    rng = np.random.default_rng(6)
    planes = Planes(
        y=rng.integers(16, 236, (34, 50), np.uint8),
        u=rng.integers(90, 160, (17, 25), np.uint8),
        v=rng.integers(90, 160, (17, 25), np.uint8),
    )
    here = planes_to_rgb(planes, colour)

    there = planes_to_rgb(planes, colour, "cuda")
    download = begin_download(pack_i420(there, colour), planes.size)

    assert torch.allclose(there.cpu(), here, atol=1e-5)
    (expected,) = rgb_to_planes(here, colour)
    (found,) = download.wait()
    for name in ("y", "u", "v"):
        assert np.abs(getattr(found, name).astype(int) - getattr(expected, name)).max() <= 1


@pytest.mark.parametrize("strength", [Stabilise.LITE, Stabilise.STRONG])
def test_the_stabiliser_gives_the_cpus_planes_and_waits_for_nothing(strength: Stabilise) -> None:
    generator = torch.Generator().manual_seed(1)
    here, there = TorchStabiliser(strength), TorchStabiliser(strength)
    for number in range(4):
        lr = torch.rand(64, 96, generator=generator) * 4 + 100
        hr = (lr.repeat(2, 2), lr + 1, lr + 2)
        expected = here.apply(lr, hr)
        device = lr.cuda(), tuple(plane.cuda() for plane in hr)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error" if number > 1 else "default")
        try:
            found = there.apply(*device)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for one, other in zip(expected, found, strict=True):
            assert float((one - other.cpu()).abs().mean()) < 0.05


@pytest.mark.parametrize("out", [Size(96, 72), Size(160, 90), Size(240, 200)])
def test_another_size_is_the_cpus_and_waits_for_nothing(out: Size) -> None:
    generator = torch.Generator().manual_seed(2)
    y = torch.rand(2, 128, 128, generator=generator) * 200 + 20
    chroma = torch.rand(2, 2, 64, 64, generator=generator) * 50 + 100
    layout = placed_in(Size(128, 128), out, Fit.CONTAIN)
    expected = laid_out_levels(y, chroma, layout, Colour())
    device = y.cuda(), chroma.cuda()
    laid_out_levels(*device, layout, Colour())  # its weights are uploaded once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = laid_out_levels(*device, layout, Colour())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one.cpu(), other, atol=0.3)
