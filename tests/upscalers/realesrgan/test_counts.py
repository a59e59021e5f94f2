"""The work of one frame of RealESRGAN x2, counted: a pass over memory that is added fails here."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tests.upscalers.counting import Counting  # noqa: E402

from streamlift.upscalers.realesrgan.rrdbnet import RRDBNet, x2plus  # noqa: E402


def test_a_frame_of_512x512_moves_at_most_9_gb() -> None:
    with torch.device("meta"):
        net = RRDBNet(x2plus()).half()
        frame = torch.empty(1, 3, 512, 512, dtype=torch.float16)
    with torch.no_grad():
        net(frame)  # packs the weights
    with torch.no_grad(), Counting() as counting:
        assert net(frame).shape == (1, 3, 1024, 1024)
    assert sum(counting.bytes.values()) <= 9e9
    assert counting.kernels["conv3x3.default"] == 23 * 15 + 4
    assert counting.kernels["enlarging_conv.default"] == 2
    assert counting.tflop == pytest.approx(2.27, abs=0.05)
