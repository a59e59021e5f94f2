"""What `streamlift bench` computes: speed, and the quality table beside bicubic and Lanczos."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamlift.engine import measure_fps
from streamlift.engine.stabilise import Stabiliser
from streamlift.errors import ConfigError
from streamlift.frames import Planes, Stabilise
from streamlift.quality import Method, bicubic, lanczos, quality_table, read_clip, render_table
from streamlift.quality.coding import luma_planes
from streamlift.quality.synthetic import TEST_CLIPS, synthetic_clip
from streamlift.quality.table import Clip
from streamlift.upscalers.base import Pixels, Upscaler, UpscaleSession
from streamlift.upscalers.compact import Compact

__all__ = [
    "BITRATES",
    "Speed",
    "bench_quality",
    "bench_speed",
    "standard_methods",
    "synthetic_clips",
    "upscaler_method",
]

BITRATES: tuple[int | None, ...] = (None, 3_000_000, 1_500_000, 1_000_000)


@dataclass(frozen=True, slots=True)
class Speed:
    """Frames a second at 512x512, and the processor time that measuring took."""

    fps: float
    cpu_s: float


def bench_speed(upscaler: Upscaler, device: str) -> Speed:
    """Measure one upscaler alone, as the service does at its start. Raises UpscaleError."""
    started_s = time.process_time()
    fps = measure_fps(upscaler, device)
    return Speed(fps, time.process_time() - started_s)


def bench_quality(
    paths: Sequence[Path],
    *,
    upscaler: Upscaler | None = None,
    bitrates: Sequence[int | None] = BITRATES,
    frames: int = 48,
    timed_frames: int = 60,
) -> str:
    """The quality table in markdown, for video files whose centre square is the ground truth.

    Without files: the nine synthetic clips. `upscaler`: a per-frame one on YUV planes; None means
    `compact` as this machine would run it. CPU time is the median of `timed_frames`. Takes
    minutes. Raises MediaError for unreadable files, ConfigError for an upscaler of another kind.
    """
    clips = [read_clip(path, frames=frames) for path in paths] or synthetic_clips(frames=24)
    methods = standard_methods(upscaler or Compact.from_settings({}))
    return render_table(quality_table(clips, methods, bitrates, timed_frames=timed_frames))


def standard_methods(upscaler: Upscaler) -> list[Method]:
    """Bicubic, Lanczos, and the upscaler alone, with `lite` and with `strong`."""
    steadied = [upscaler_method(upscaler, strength) for strength in Stabilise]
    return [bicubic(), lanczos(), *steadied]


def upscaler_method(
    upscaler: Upscaler, strength: Stabilise = Stabilise.OFF, *, name: str | None = None
) -> Method:
    """A per-frame x2 upscaler on YUV planes, then the stabiliser, as a method of the table."""
    spec = upscaler.spec
    if spec.chunked or spec.scale != 2 or spec.pixels is not Pixels.YUV420:
        raise ConfigError(
            f"the quality table takes per-frame x2 upscalers on YUV planes, not {spec.name}",
            found=spec.name,
            expected="a spec with step 1, lag 0, scale 2, pixels yuv420",
        )
    title = name or spec.name
    if strength is not Stabilise.OFF:
        title = f"{title} + {strength}"
    return Method(title, lambda: _Steadied(upscaler, strength))


def synthetic_clips(*, side: int = 512, frames: int = 24) -> list[Clip]:
    """The nine fixed test scenes as ground truth."""
    return [
        Clip(name, tuple(luma_planes(y) for y in synthetic_clip(name, side=side, frames=frames)))
        for name in TEST_CLIPS
    ]


class _Steadied:
    """One clip's session and stabiliser; the session opens with the first frame."""

    def __init__(self, upscaler: Upscaler, strength: Stabilise) -> None:
        self._upscaler = upscaler
        self._stabiliser = Stabiliser(strength)
        self._session: UpscaleSession[Planes] | None = None

    def __call__(self, lr: Planes) -> Planes:
        if self._session is None:
            self._session = self._upscaler.open(lr.size)
        (hr,) = self._session.push(lr)
        return self._stabiliser.apply(lr.y, hr)
