"""Files on a GPU: RealESRGAN takes several pictures at a time, and they are those of one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.offline.media import make_clip, pictures_of, times_of

from streamlift.clock import MonotonicClock
from streamlift.errors import InvalidOutput
from streamlift.frames import Size, Stabilise
from streamlift.offline import Options, upscale_file
from streamlift.offline import enlarge as enlarging

torch = pytest.importorskip("torch", reason="RealESRGAN needs torch")

from streamlift.upscalers.realesrgan import RealESRGAN, RRDBNet, RRDBNetConfig  # noqa: E402

PLENTY = 10**12


class CountedNet(RRDBNet):
    """Notes how many pictures each of its runs had."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        super().__init__(RRDBNetConfig(2, blocks=1, features=8, growth=4))
        self.eval()
        self.runs: list[int] = []

    def forward(self, x: Any) -> Any:
        self.runs.append(x.shape[0])
        return super().forward(x)


def _upscaled(
    source: Path, target: Path, free: int | None, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[list[Any], list[int]]:
    monkeypatch.setattr(enlarging, "free_memory", lambda device: free)
    net = CountedNet()
    upscaler = RealESRGAN(net, name="realesrgan-x2", device=torch.device("cpu"))
    result = upscale_file(
        source, target, upscaler, options=Options(codec="h264", crf=0, clobber=True, **options)
    )
    found = pictures_of(target)
    assert result.pictures == len(found)
    return [picture.to_ndarray() for picture in found], net.runs


@pytest.mark.parametrize(
    ("pix_fmt", "stabilise"),
    [
        ("yuv420p", Stabilise.OFF),
        ("yuv420p", Stabilise.LITE),
        ("yuv420p10le", Stabilise.OFF),
    ],
)
def test_pictures_in_batches_are_those_of_one_by_one(
    pix_fmt: str, stabilise: Stabilise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_clip(tmp_path / "in.mkv", frames=10, pix_fmt=pix_fmt)
    one, two = tmp_path / "one.mkv", tmp_path / "two.mkv"
    single, runs = _upscaled(source, one, None, monkeypatch, stabilise=stabilise)
    assert runs == 10 * [1]
    batched, runs = _upscaled(source, two, PLENTY, monkeypatch, stabilise=stabilise)
    assert runs == [4, 4, 4], "the last is filled up"
    assert len(batched) == 10
    assert times_of(one) == times_of(two)
    for found, expected in zip(batched, single, strict=True):
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_a_batch_takes_no_more_than_half_of_the_free_memory() -> None:
    upscaler = RealESRGAN(CountedNet(), name="realesrgan-x2", device=torch.device("cpu"))
    size = Size(95, 64)
    one = upscaler.session_bytes(Size(96, 64))
    for free, step in ((None, 1), (2 * one, 1), (5 * one, 2), (8 * one, 4), (PLENTY, 4)):
        chosen = enlarging.several_at_a_time(upscaler, size, free)
        assert chosen.spec.step == step


def test_deep_pictures_that_are_no_numbers_are_made_anew_or_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_clip(tmp_path / "in.mkv", frames=2, pix_fmt="yuv420p10le")
    net = CountedNet()
    with torch.no_grad():
        net.get_parameter("conv_last.bias")[0] = torch.nan
    upscaler = RealESRGAN(net, name="realesrgan-x2", device=torch.device("cpu"))
    with pytest.raises(InvalidOutput, match="not of numbers"):
        upscale_file(source, tmp_path / "out.mkv", upscaler, clock=MonotonicClock())
    assert net.runs == [1, 1], "once more before it was given up"
    assert not (tmp_path / "out.mkv").exists()
