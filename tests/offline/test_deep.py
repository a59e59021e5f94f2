"""Clips of 10 bits: every kind of model keeps them, in depth and in colour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.offline.media import make_clip, pictures_of
from tests.offline.test_stills import upscaler_of

from streamlift.errors import ConfigError
from streamlift.frames import Colour, Stabilise
from streamlift.offline import Options, upscale_file
from streamlift.offline.pictures import Picture
from streamlift.upscalers.toy import Toy, ToyKnobs


def ramp(path: Path, *, full_range: bool = False) -> Path:
    """A picture whose luma climbs by one level of 1023 a column."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p10le"
        stream.codec_context.color_range = 1 + full_range
        for _ in range(3):
            y = np.tile(np.arange(400, 496, dtype=np.uint16), (64, 1))
            chroma = np.full((64, 48), 512, np.uint16)
            planes = np.concatenate((y.ravel(), chroma.ravel()))
            frame = av.VideoFrame.from_ndarray(planes.reshape(96, 96), format="yuv420p10le")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("model", ["bicubic", "compact", "realesrgan", "toy"])
@pytest.mark.parametrize("full_range", [False, True])
def test_every_level_is_kept(model: str, full_range: bool, tmp_path: Path) -> None:
    source, target = ramp(tmp_path / "in.mkv", full_range=full_range), tmp_path / "out.mkv"
    upscaler = Toy(ToyKnobs(first=3, step=2, lag=1)) if model == "toy" else upscaler_of(model)
    options = Options(codec="h264", crf=0)
    assert upscale_file(source, target, upscaler, options=options).pictures == 3
    for frame in pictures_of(target):
        assert frame.format.name == "yuv420p10le"
        row = frame.to_ndarray()[64, 16:176].astype(int)
        assert np.abs(row - (400 + np.arange(16, 176) / 2)).mean() < 2
        assert len(np.unique(row)) > 60  # 8 bits have 20 levels there


@pytest.mark.parametrize("model", ["compact", "realesrgan"])
def test_hdr_goes_through_models(model: str, tmp_path: Path) -> None:
    source = make_clip(
        tmp_path / "in.mkv",
        frames=3,
        codec="libx265",
        pix_fmt="yuv420p10le",
        options={"x265-params": "log-level=none"},
        matrix=9,
        primaries=9,
        transfer=16,
    )
    target = tmp_path / "out.mp4"
    upscale_file(source, target, upscaler_of(model))
    before, after = pictures_of(source)[1], pictures_of(target)[1]
    tags = (after.colorspace, after.color_primaries, after.color_trc)
    assert tuple(map(int, tags)) == (9, 9, 16)
    for number in range(3):
        assert mean(after, number) == pytest.approx(mean(before, number), abs=3)


def test_planes_become_rgb_and_planes_again() -> None:
    pytest.importorskip("torch")
    from streamlift.offline.deep_rgb import to_picture, to_rgb

    rng = np.random.default_rng(1)
    y = rng.integers(300, 600, (31, 45)).astype(np.uint16)
    u, v = (np.full((16, 23), level, np.uint16) for level in (500, 530))
    for matrix in ("bt601", "bt709", "bt2020"):
        for full_range in (False, True):
            colour, picture = Colour(matrix, full_range), Picture(y, u, v, 10, 0)
            rgb = to_rgb(picture, colour, "cpu", 4)
            assert tuple(rgb.shape) == (1, 3, 32, 48)
            back = to_picture(rgb[0], picture, colour, 1)
            for one, other in ((back.y, y), (back.u, u), (back.v, v)):
                assert one.shape == other.shape
                assert np.abs(one.astype(int) - other).max() <= 1


def test_what_knows_no_10_bits_says_so(tmp_path: Path) -> None:
    source = ramp(tmp_path / "in.mkv")
    options = Options(stabilise=Stabilise.LITE)
    with pytest.raises(ConfigError, match="works on 8 bits, and this clip has 10"):
        upscale_file(source, tmp_path / "out.mkv", upscaler_of("bicubic"), options=options)
    assert list(names(tmp_path)) == ["in.mkv"]


def names(folder: Path) -> Iterator[str]:
    return (p.name for p in folder.iterdir())


def mean(frame: av.VideoFrame, plane: int) -> float:
    part: Any = frame.planes[plane]
    rows = np.frombuffer(memoryview(part), np.uint16).reshape(part.height, -1)
    return float(rows[:, : part.width].mean())
