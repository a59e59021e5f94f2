"""GIF, animated WebP and APNG: durations, alpha and number of plays."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from tests.offline.media import make_clip, pictures_of, times_of

from streamlift.errors import MediaError
from streamlift.frames import Size, Stabilise
from streamlift.offline import Options, upscale_file
from streamlift.offline.animations import read_animation, read_timing
from streamlift.offline.sources import kind_of_source
from streamlift.offline.steps import Notes
from streamlift.upscalers.bicubic import Bicubic

DURATIONS = [100, 200, 50, 400]


def animation(path: Path, plays: int = 0) -> Path:
    """Four frames of 48x32: a square that changes its colour on a transparent ground."""
    made = cv2.Animation()
    frames = []
    for number in range(len(DURATIONS)):
        frame = np.zeros((32, 48, 4), np.uint8)
        frame[8:24, 8:40] = (40 * number, 200 - 40 * number, 120, 255)
        frames.append(frame)
    if path.suffix == ".webp":
        return webp(path, frames, plays)
    made.frames, made.durations = frames, np.array(DURATIONS)  # type: ignore[assignment]
    made.loop_count = plays
    where = path.with_suffix(".png") if path.suffix == ".apng" else path
    assert cv2.imwriteanimation(str(where), made)
    return where.rename(path)


def webp(path: Path, frames: list[Any], plays: int) -> Path:
    """By libwebp, which lays changed parts over what was there; OpenCV would drop the alpha."""
    with av.open(str(path), "w", options={"loop": str(plays)}) as container:
        stream: Any = container.add_stream("libwebp_anim", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "bgra"
        stream.options = {"lossless": "1"}
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="bgra")
            frame.pts, frame.time_base = sum(DURATIONS[:number]), Fraction(1, 1000)
            frame.duration = DURATIONS[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def frames_of(path: Path) -> list[tuple[Any, int]]:
    """RGBA frames and their durations in milliseconds."""
    _, form = kind_of_source(path)
    return [(m.pixels, round(m.duration_s * 1000)) for m in read_animation(path, form, Notes())]


@pytest.mark.parametrize("source", [".gif", ".webp", ".apng"])
@pytest.mark.parametrize("target", [".gif", ".webp", ".apng"])
def test_durations_and_alpha_are_kept(source: str, target: str, tmp_path: Path) -> None:
    start, out = animation(tmp_path / f"in{source}"), tmp_path / f"out{target}"
    result = upscale_file(start, out, Bicubic())
    assert result.pictures == len(DURATIONS)
    assert result.warnings == ()
    found = frames_of(out)
    durations = [duration for _, duration in frames_of(start)]
    assert durations[:3] == DURATIONS[:3]
    assert [duration for _, duration in found] == pytest.approx(durations, abs=5)  # GIF: 10 ms
    for number, (pixels, _) in enumerate(found):
        assert pixels.shape == (64, 96, 4)
        assert pixels[2, 2, 3] == 0
        assert pixels[32, 48, 3] == 255
        colour = pixels[20:44, 20:76, :3].mean(axis=(0, 1))
        assert np.abs(colour - (120, 200 - 40 * number, 40 * number)).max() < 12


@pytest.mark.parametrize("target", [".apng", ".mp4"])
def test_every_picture_of_an_animated_avif_is_taken(target: str, tmp_path: Path) -> None:
    made = cv2.Animation()
    made.frames = [np.full((32, 48, 3), 50 * n, np.uint8) for n in range(len(DURATIONS))]
    made.durations = np.array(DURATIONS)  # type: ignore[assignment]
    start, out = tmp_path / "in.avif", tmp_path / f"out{target}"
    assert cv2.imwriteanimation(str(start), made)
    assert upscale_file(start, out, Bicubic()).pictures == len(DURATIONS)
    steps = np.diff(np.array(times_of(out)))
    assert steps == pytest.approx(np.array(DURATIONS[:3]) / 1000, abs=0.002)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".apng"])
def test_the_number_of_plays_is_kept(suffix: str, tmp_path: Path) -> None:
    for plays in (0, 3):
        start = animation(tmp_path / f"in{suffix}", plays)
        _, form = kind_of_source(start)
        before = read_timing(start, form).plays
        upscale_file(start, tmp_path / f"out{suffix}", Bicubic())
        assert read_timing(tmp_path / f"out{suffix}", form).plays == before


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".apng"])
def test_an_animation_becomes_a_video_with_its_times(suffix: str, tmp_path: Path) -> None:
    start, target = animation(tmp_path / f"in{suffix}"), tmp_path / "out.mp4"
    result = upscale_file(start, target, Bicubic())
    assert times_of(target) == [0.0, 0.1, 0.3, 0.35]
    assert "transparency" in " ".join(result.warnings)
    with av.open(str(target)) as container:
        video = container.streams.video[0]
        assert video.duration is not None
        assert video.time_base is not None
        length_s = sum(duration for _, duration in frames_of(start)) / 1000
        assert float(video.duration * video.time_base) == pytest.approx(length_s, abs=0.011)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".apng"])
def test_a_video_becomes_an_animation_with_its_times(suffix: str, tmp_path: Path) -> None:
    clip, target = make_clip(tmp_path / "in.mp4", frames=6), tmp_path / f"out{suffix}"
    upscale_file(clip, target, Bicubic(), options=Options(size=Size(96, 64)))
    found = frames_of(target)
    assert [duration for _, duration in found] == [40] * 6
    source = pictures_of(clip)[3].to_ndarray(format="rgb24").astype(float)
    assert np.abs(found[3][0][..., :3] - source).mean() < 6


def test_an_animation_becomes_numbered_pictures_or_is_refused(tmp_path: Path) -> None:
    start = animation(tmp_path / "in.gif")
    with pytest.raises(MediaError, match="numbered target"):
        upscale_file(start, tmp_path / "out.png", Bicubic())
    assert upscale_file(start, tmp_path / "o%d.png", Bicubic()).pictures == 4
    fourth = cv2.imread(str(tmp_path / "o4.png"), cv2.IMREAD_UNCHANGED)
    assert fourth is not None
    assert fourth.shape == (64, 96, 4)


def test_an_animation_can_be_stabilised(tmp_path: Path) -> None:
    start, target = animation(tmp_path / "in.gif"), tmp_path / "out.gif"
    upscale_file(start, target, Bicubic(), options=Options(stabilise=Stabilise.LITE))
    assert [duration for _, duration in frames_of(target)][:3] == DURATIONS[:3]
