"""The quality table, its markdown, the crops, and reading a file as ground truth."""

from __future__ import annotations

import threading
import time
import wave
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from streamlift.bench import (
    bench_quality,
    standard_methods,
    synthetic_clips,
    upscaler_method,
)
from streamlift.errors import ConfigError, MediaError
from streamlift.frames import Planes, Size
from streamlift.quality import (
    Clip,
    Method,
    bicubic,
    cpu_ms,
    flicker_rows,
    lanczos,
    quality_table,
    read_clip,
    render_flicker,
    render_table,
    write_crops,
)
from streamlift.quality.coding import luma_planes
from streamlift.quality.synthetic import TEST_CLIPS, synthetic_clip
from streamlift.quality.table import TURNS
from streamlift.upscalers.base import UpscalerSpec
from streamlift.upscalers.bicubic import Bicubic
from streamlift.upscalers.compact import Compact, Precision, Tier


@pytest.fixture(scope="module")
def clip() -> Clip:
    pictures = synthetic_clip("page", side=128, frames=4)
    return Clip("page", tuple(luma_planes(y) for y in pictures))


def test_the_table_has_a_row_for_each_clip_rate_and_method(clip: Clip) -> None:
    rows = quality_table([clip], [bicubic(), lanczos()], [None, 1_500_000], timed_frames=2)
    assert [(r.clip, r.bitrate_bps, r.method) for r in rows] == [
        ("page", None, "bicubic"),
        ("page", None, "Lanczos"),
        ("page", 1_500_000, "bicubic"),
        ("page", 1_500_000, "Lanczos"),
    ]
    assert rows[1].psnr > rows[0].psnr > rows[2].psnr
    assert all(row.truth_e_warp == rows[0].truth_e_warp for row in rows)


def test_a_method_is_opened_afresh_for_each_clip_and_rate(clip: Clip) -> None:
    opened = []

    def opening() -> object:
        opened.append(1)
        return bicubic().open()

    method = Method("counted", opening)  # type: ignore[arg-type]
    quality_table([clip, clip], [method], [None, 1_500_000], timed_frames=2)
    assert len(opened) == 4 + TURNS  # and once in each turn for the time


def test_the_markdown_gives_gains_over_bicubic(clip: Clip) -> None:
    text = render_table(quality_table([clip], [bicubic(), lanczos()], [None], timed_frames=2))
    assert "**uncompressed**, mean of 1 clips" in text
    bicubic_line, lanczos_line = text.strip().splitlines()[-2:]
    assert bicubic_line.split("|")[3].strip() == "+0.00"
    assert float(lanczos_line.split("|")[3]) > 0


def test_exact_flicker_is_given_for_still_and_panned_pictures(clip: Clip) -> None:
    rows = flicker_rows([clip.frames[0].y], [bicubic(), lanczos()])
    assert [row.motion for row in rows[::2]] == ["still", "pan (1,1)", "pan (3,2)"]
    assert all(row.flicker > 0 for row in rows)
    assert render_flicker(rows).count("\n") == 4


def test_crops_lie_side_by_side_with_the_truth_last(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "crops.png"
    write_crops(path, clip, [bicubic()], bitrate_bps=None, frame=1, corner=(8, 8), side=64)
    drawn = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert drawn is not None
    assert drawn.shape == (28 + 128, 256)
    truth = clip.frames[1].y[8:72, 8:72]
    assert np.array_equal(drawn[28::2, 128::2], truth)


def test_a_crop_outside_the_picture_is_refused(clip: Clip, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="leaves the picture"):
        write_crops(
            tmp_path / "x.png", clip, [], bitrate_bps=None, frame=0, corner=(100, 0), side=64
        )


def test_a_file_gives_its_centre_square_with_sides_divisible_by_four(tmp_path: Path) -> None:
    path = _video(tmp_path / "wide.mp4", width=140, height=90)
    clip = read_clip(path, frames=2)
    assert [planes.size for planes in clip.frames] == [Size(88, 88)] * 2
    assert read_clip(path, square=False).frames[0].size == Size(140, 88)
    # A bright left half: the centre square is split in the middle.
    middle = clip.frames[0].y[40]
    assert middle[10] > 150 > 90 > middle[-10]


def test_a_file_without_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))
    with pytest.raises(MediaError, match="no video"):
        read_clip(path)


def test_upscalers_are_measured_with_and_without_the_stabiliser(clip: Clip) -> None:
    methods = standard_methods(Compact(Tier.XS, Precision.FP32))
    assert [m.name for m in methods] == [
        "bicubic",
        "Lanczos",
        "compact",
        "compact + lite",
        "compact + strong",
    ]
    outputs = [[enlarge(p).y for p in clip.frames] for enlarge in (m.open() for m in methods[2:])]
    assert np.array_equal(outputs[0][0], outputs[1][0])
    assert not np.array_equal(outputs[0][-1], outputs[1][-1])


def test_an_upscaler_of_another_kind_is_refused() -> None:
    upscaler = Bicubic()
    upscaler.spec = UpscalerSpec("slow", scale=2, first=1, step=8, lag=4)
    with pytest.raises(ConfigError, match="not slow"):
        upscaler_method(upscaler)


def test_the_benchmark_reads_files_and_renders_every_method(tmp_path: Path) -> None:
    path = _video(tmp_path / "clip.mp4", width=128, height=128)
    upscaler = Compact(Tier.XS, Precision.FP32)
    text = bench_quality([path], upscaler=upscaler, bitrates=[1_500_000], frames=3, timed_frames=2)
    assert "**1.5 Mbit/s**, mean of 1 clips" in text
    assert [line.split("|")[1].strip() for line in text.splitlines()[4:9]] == [
        method.name for method in standard_methods(upscaler)
    ]


def test_there_are_nine_synthetic_clips_and_they_do_not_change() -> None:
    clips = synthetic_clips(side=64, frames=2)
    assert [clip.name for clip in clips] == list(TEST_CLIPS)
    assert len(clips) == 9
    again = synthetic_clips(side=64, frames=2)
    for one, other in zip(clips, again, strict=True):
        assert np.array_equal(one.frames[1].y, other.frames[1].y)


def test_time_is_of_the_calling_thread() -> None:
    def spin() -> None:
        end_s = time.thread_time() + 0.005
        while time.thread_time() < end_s:
            pass

    def itself(lr: Planes) -> Planes:
        spin()
        return lr

    def elsewhere(lr: Planes) -> Planes:
        other = threading.Thread(target=spin)
        other.start()
        other.join()
        return lr

    own = cpu_ms(Method("itself", lambda: itself), frames=5)
    others = cpu_ms(Method("elsewhere", lambda: elsewhere), frames=5)
    assert own >= 5
    assert others < own / 2


def _video(path: Path, *, width: int, height: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "10"}
        y = np.full((height, width), 60, np.uint8)
        y[:, : width // 2] = 200
        chroma = np.full((height // 2, width), 128, np.uint8)
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.vstack([y, chroma]), format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
