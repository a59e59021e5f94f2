"""The quality table: code clips as a publisher would, enlarge them by each method, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import cast

import cv2
import numpy as np

from streamlift.errors import MediaError
from streamlift.frames import Plane, Planes
from streamlift.quality.coding import Coding, area_half, code_clip, luma_planes
from streamlift.quality.figures import (
    e_warp,
    flicker,
    motion_of,
    psnr,
    sharpness_ratio,
    shift_flicker,
    ssim,
)

__all__ = [
    "SHIFTS",
    "Clip",
    "Enlarge",
    "FlickerRow",
    "Method",
    "Row",
    "bicubic",
    "cpu_ms",
    "flicker_rows",
    "lanczos",
    "quality_table",
    "read_clip",
    "render_flicker",
    "render_table",
    "write_crops",
]

Enlarge = Callable[[Planes], Planes]
SHIFTS = {"still": (0, 0), "pan (1,1)": (1, 1), "pan (3,2)": (3, 2)}
EXACT_FRAMES = 20
EXACT_NOISE = 1.0
BASELINE = "bicubic"
TURNS = 5
"""In which processor time is measured."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Ground truth: pictures whose sides divide by 4."""

    name: str
    frames: tuple[Planes, ...]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to enlarge x2. `open` gives a fresh one for each clip, so that none remembers another.

    It is called with every frame of a clip in order and returns that frame at twice the size.
    """

    name: str
    open: Callable[[], Enlarge]


@dataclass(frozen=True, slots=True)
class Row:
    """One clip at one rate by one method; `bitrate_bps` None is uncompressed.

    dB, levels of 255; `truth_e_warp` is the ground truth's own; `cpu_ms` is per 512x512 frame.
    """

    clip: str
    bitrate_bps: int | None
    method: str
    psnr: float
    ssim: float
    e_warp: float
    truth_e_warp: float
    flicker: float
    sharpness: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class FlickerRow:
    """Exact flicker of one method in levels, for one kind of motion, mean over pictures."""

    motion: str
    method: str
    flicker: float


def bicubic() -> Method:
    """OpenCV's bicubic, a = -0.75: the baseline of the table."""
    return Method(BASELINE, lambda: lambda lr: _resized(lr, cv2.INTER_CUBIC))


def lanczos() -> Method:
    """OpenCV's Lanczos with four lobes."""
    return Method("Lanczos", lambda: lambda lr: _resized(lr, cv2.INTER_LANCZOS4))


def quality_table(
    clips: Iterable[Clip],
    methods: Sequence[Method],
    bitrates: Sequence[int | None],
    *,
    timed_frames: int = 60,
) -> list[Row]:
    """Measure every method on every clip at every rate (bits/s as at 512x512@25; None: not coded).

    Ground truth is halved by area, coded by x264 veryfast zerolatency baseline at an average rate,
    decoded, enlarged, compared. CPU time is measured beforehand, on `timed_frames` of each method.
    """
    # In turns, and the least of them: another process slows what it runs beside.
    turns = [
        {method.name: cpu_ms(method, frames=-(-timed_frames // TURNS)) for method in methods}
        for _ in range(TURNS)
    ]
    times = {method.name: min(turn[method.name] for turn in turns) for method in methods}
    rows = []
    for clip in clips:
        truth = [planes.y for planes in clip.frames]
        motions = motion_of(truth)
        own = e_warp(truth, motions)
        small = [area_half(planes) for planes in clip.frames]
        for rate in bitrates:
            coded = small if rate is None else code_clip(small, Coding(bitrate_bps=rate))
            for method in methods:
                enlarge = method.open()
                output = [enlarge(planes).y for planes in coded]
                rows.append(
                    Row(
                        clip=clip.name,
                        bitrate_bps=rate,
                        method=method.name,
                        psnr=fmean(map(psnr, output, truth)),
                        ssim=fmean(map(ssim, output, truth)),
                        e_warp=e_warp(output, motions),
                        truth_e_warp=own,
                        flicker=flicker(output, truth, motions),
                        sharpness=fmean(map(sharpness_ratio, output, truth)),
                        cpu_ms=times[method.name],
                    )
                )
    return rows


def flicker_rows(
    pictures: Sequence[Plane], methods: Sequence[Method], *, bitrate_bps: int = 1_500_000
) -> list[FlickerRow]:
    """Exact flicker: each picture held still, and panned by whole pixels; noise, coded, enlarged.

    Pictures are HR luma, sides divisible by 4.
    """
    rows = []
    for name, shift in SHIFTS.items():
        found: dict[str, list[float]] = {method.name: [] for method in methods}
        for picture in pictures:
            coded = code_clip(_panned(picture, shift), Coding(bitrate_bps=bitrate_bps))
            for method in methods:
                enlarge = method.open()
                output = [enlarge(planes).y for planes in coded]
                found[method.name].append(shift_flicker(output, shift))
        rows += [FlickerRow(name, method, fmean(values)) for method, values in found.items()]
    return rows


def cpu_ms(method: Method, *, frames: int = 60, side: int = 512) -> float:
    """Median CPU time of the calling thread per frame of side x side, in ms.

    The picture moves, so that a stabiliser has work to do. Methods that compute in other threads
    are not measured rightly; ours do not, and OpenCV is told not to.
    """
    rng = np.random.default_rng(0)
    cells = rng.uniform(30, 220, (side // 8, side // 8)).astype(np.float32)
    picture = cv2.resize(cells, (side, side), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
    enlarge = method.open()
    cv2.setNumThreads(1)  # what another thread computes would not be counted
    times = []
    for index in range(frames + 3):
        frame = luma_planes(np.ascontiguousarray(np.roll(picture, (index, 2 * index), (0, 1))))
        began = time.thread_time()
        enlarge(frame)
        times.append((time.thread_time() - began) * 1000)
    return median(times[3:])


def render_table(rows: Sequence[Row]) -> str:
    """Markdown: one table a rate, means over clips, PSNR and its gain over bicubic in dB."""
    parts = []
    for rate in dict.fromkeys(row.bitrate_bps for row in rows):
        at_rate = [row for row in rows if row.bitrate_bps == rate]
        clips = len({row.clip for row in at_rate})
        own = fmean(row.truth_e_warp for row in at_rate)
        parts.append(
            f"**{_rate_name(rate)}**, mean of {clips} clips; ground truth's E_warp {own:.2f}"
        )
        parts.append(_markdown(_HEADINGS, [_cells(at_rate, m) for m in _methods(at_rate)]))
    return "\n\n".join(parts) + "\n"


def render_flicker(rows: Sequence[FlickerRow]) -> str:
    """Markdown: exact flicker in levels, a row a method, a column a motion."""
    motions = list(dict.fromkeys(row.motion for row in rows))
    lines = []
    for method in dict.fromkeys(row.method for row in rows):
        values = {row.motion: row.flicker for row in rows if row.method == method}
        lines.append([method, *(f"{values[motion]:.2f}" for motion in motions)])
    return _markdown(["exact flicker, levels", *motions], lines) + "\n"


def write_crops(
    path: Path,
    clip: Clip,
    methods: Sequence[Method],
    *,
    bitrate_bps: int | None,
    frame: int,
    corner: tuple[int, int],
    side: int = 192,
) -> None:
    """Write a PNG: the same square of one frame by each method, ground truth last.

    `corner` is (x, y) in HR pixels. Raises MediaError when the square leaves the picture.
    """
    x, y = corner
    size = clip.frames[0].size
    if x + side > size.width or y + side > size.height:
        raise MediaError(
            "the crop leaves the picture", found=(x, y, side), expected=f"inside {size}"
        )
    small = [area_half(planes) for planes in clip.frames[: frame + 1]]
    coded = small if bitrate_bps is None else code_clip(small, Coding(bitrate_bps=bitrate_bps))
    tiles = []
    for method in methods:
        enlarge = method.open()
        tiles.append((method.name, [enlarge(planes) for planes in coded][-1].y))
    tiles.append(("ground truth", clip.frames[frame].y))
    drawn = [_tile(name, plane[y : y + side, x : x + side]) for name, plane in tiles]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.hstack(drawn))


def read_clip(path: Path, *, frames: int | None = None, square: bool = True) -> Clip:
    """Read a video as ground truth: its centre square (or whole picture), sides cut to fours.

    Raises MediaError when the file holds no video.
    """
    import av

    pictures: list[Planes] = []
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise MediaError("no video in the file", found=str(path), expected="a video file")
        for frame in container.decode(video=0):
            pictures.append(
                _centre(cast(Plane, frame.reformat(format="yuv420p").to_ndarray()), square)
            )
            if len(pictures) == frames:
                break
    if not pictures:
        raise MediaError("no picture could be decoded", found=str(path))
    return Clip(path.stem, tuple(pictures))


_HEADINGS = [
    "method",
    "PSNR-Y",
    "over bicubic",
    "SSIM",
    "E_warp",
    "flicker vs GT",
    "sharpness",
    "CPU ms",
]


def _cells(rows: Sequence[Row], method: str) -> list[str]:
    own = [row for row in rows if row.method == method]
    base = {row.clip: row.psnr for row in rows if row.method == BASELINE}
    gain = fmean(row.psnr - base[row.clip] for row in own) if base else float("nan")
    return [
        method,
        f"{fmean(row.psnr for row in own):.2f}",
        f"{gain:+.2f}",
        f"{fmean(row.ssim for row in own):.4f}",
        f"{fmean(row.e_warp for row in own):.2f}",
        f"{fmean(row.flicker for row in own):.2f}",
        f"{fmean(row.sharpness for row in own):.2f}",
        f"{own[0].cpu_ms:.1f}",
    ]


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.method for row in rows))


def _markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    table = [headings, ["---", *["---:"] * (len(headings) - 1)], *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in table)


def _rate_name(rate: int | None) -> str:
    return "uncompressed" if rate is None else f"{rate / 1e6:g} Mbit/s"


def _resized(lr: Planes, interpolation: int) -> Planes:
    def plane(p: Plane) -> Plane:
        height, width = p.shape
        return cast(Plane, cv2.resize(p, (2 * width, 2 * height), interpolation=interpolation))

    return Planes(plane(lr.y), plane(lr.u), plane(lr.v))


def _panned(picture: Plane, shift: tuple[int, int]) -> list[Planes]:
    """The picture moved by `shift` a frame, wrapping round, halved, with fresh noise."""
    rng = np.random.default_rng(1)
    dx, dy = shift
    clip = []
    for index in range(EXACT_FRAMES):
        moved = np.ascontiguousarray(np.roll(picture, (dy * index, dx * index), (0, 1)))
        half = area_half(luma_planes(moved)).y
        noisy = half + rng.normal(0, EXACT_NOISE, half.shape)
        clip.append(luma_planes(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)))
    return clip


def _tile(name: str, crop: Plane) -> Plane:
    """A crop twice enlarged without smoothing, its name on a strip above."""
    side = crop.shape[0] * 2
    big = cv2.resize(crop, (side, side), interpolation=cv2.INTER_NEAREST)
    strip = np.zeros((28, side), np.uint8)
    cv2.putText(strip, name, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, 255, 1, cv2.LINE_AA)
    return cast(Plane, np.vstack([strip, big]))


def _centre(i420: Plane, square: bool) -> Planes:
    """The middle of a packed I420 picture (3H/2, W), its sides cut to multiples of 4."""
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    packed, pixels = i420.reshape(-1), height * width
    y = packed[:pixels].reshape(height, width)
    u, v = packed[pixels:].reshape(2, height // 2, width // 2)
    wide, high = (min(width, height),) * 2 if square else (width, height)
    wide, high = wide - wide % 4, high - high % 4
    # Even corners keep luma and chroma together.
    left, top = (width - wide) // 4 * 2, (height - high) // 4 * 2
    chroma = (slice(top // 2, (top + high) // 2), slice(left // 2, (left + wide) // 2))
    luma = y[top : top + high, left : left + wide]
    return Planes(*(np.ascontiguousarray(p) for p in (luma, u[chroma], v[chroma])))
