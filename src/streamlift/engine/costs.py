"""Measures what each part of a frame costs on this machine, and remembers it between starts."""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from streamlift import __version__
from streamlift.clock import VIDEO_CLOCK_HZ, MonotonicClock
from streamlift.codec import H264Encoder
from streamlift.codec.decoder import CodedPicture, DecodeThread
from streamlift.codec.resample import Resampler
from streamlift.engine.cpu_budget import usable_cores
from streamlift.engine.ladder import FAST_PRESET
from streamlift.engine.plan import PAIR_CORES, Costs
from streamlift.engine.stabilise import Stabiliser
from streamlift.frames import Codec, CodedVideo, Colour, Fit, Frame, Plane, Planes, Size, Stabilise
from streamlift.sizes import placed_in
from streamlift.upscalers.bicubic import enlarge_plane
from streamlift.upscalers.compact import Precision, Tier
from streamlift.upscalers.compact.network import Network

__all__ = ["costs_file", "known_costs", "measure_costs", "repeatable"]

logger = logging.getLogger(__name__)

SIZE = Size(512, 512)
REPEATS = 6
WORST_REPEAT = 1.2
"""Halves of a measurement that differ by more say that the machine was busy: not remembered."""

LIMIT_S = 2.0
LATE_MS = 60.0
"""Where tier s takes so long, tier m is not worth measuring."""

_SOURCE_BPS, _OUTPUT_BPS = 1_500_000, 6_000_000
_LARGER = placed_in(SIZE.times(2), Size(1280, 1280), Fit.CONTAIN)
_DECODE_S = 5.0


def known_costs(
    preset: str, precision: Precision, *, measure: Callable[[str, Precision], Costs] | None = None
) -> Costs:
    """From the user's cache if this version has measured this processor, else measured now.

    A cache that cannot be read or written is no error.
    """
    path, key = costs_file(os.environ), f"{_machine()}, {preset}, {precision}"
    remembered = _read(path)
    if key in remembered:
        try:
            return Costs(**remembered[key])  # type: ignore[arg-type]
        except TypeError as error:  # of a development version, or damaged
            logger.debug("remembered costs are of another shape: %s", error)
    costs = (measure or measure_costs)(preset, precision)
    if costs.repeatable:
        _write(path, {**remembered, key: asdict(costs)})
    return costs


def costs_file(environment: Mapping[str, str]) -> Path:
    """Where measurements are remembered: $STREAMLIFT_CACHE_DIR, or the user's cache directory."""
    if named := environment.get("STREAMLIFT_CACHE_DIR"):
        return Path(named) / "costs.json"
    folder = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "streamlift" / "costs.json"


def measure_costs(preset: str, precision: Precision) -> Costs:
    """CPU time of each part on a moving texture, in about a second and at most two or three."""
    end_s = time.perf_counter() + LIMIT_S
    frames, decode = _coded_and_decoded()
    enlarged = [_bicubic(frame.planes) for frame in frames]
    parts: dict[str, list[float]] = {"decode": decode[1:]}
    parts["bicubic"] = _timed([partial(_bicubic, f.planes) for f in frames])
    stabiliser = Stabiliser(Stabilise.LITE)
    resampled = partial(Resampler().laid_out, layout=_LARGER, colour=Colour())
    parts["resample"] = _timed([partial(resampled, hr) for hr in enlarged])[1:]
    parts["steady"] = _timed(
        [
            partial(stabiliser.apply, f.planes.y, hr, pts=f.pts, motion=f.motion)
            for f, hr in zip(frames, enlarged, strict=True)
        ]
    )[1:]
    for name in {preset, FAST_PRESET}:
        parts[f"preset {name}"] = _encoding(enlarged, name)
    for tier in (Tier.S, Tier.XS, Tier.M):
        spent = time.perf_counter() > end_s or (
            tier is Tier.M and median(parts[f"tier {Tier.S}"]) > LATE_MS
        )
        if tier is Tier.M and spent:
            continue
        network = Network(tier, precision)
        parts[f"tier {tier}"] = _timed([partial(network.enlarge, f.planes.y) for f in frames])[1:]
        if usable_cores() >= PAIR_CORES and time.perf_counter() < end_s:
            pair = Network(tier, precision, threads=2)
            calls = [partial(pair.enlarge, f.planes.y) for f in frames]
            parts[f"pair {tier}"] = _timed(calls, clock_s=time.perf_counter)[1:]
    return _costs(parts)


def _costs(parts: Mapping[str, Sequence[float]]) -> Costs:
    ms = {name: median(times) for name, times in parts.items()}

    def kind(prefix: str) -> dict[str, float]:
        return {n.removeprefix(prefix): v for n, v in ms.items() if n.startswith(prefix)}

    return Costs(
        decode_ms=ms["decode"],
        bicubic_ms=ms["bicubic"],
        tiers_ms=kind("tier "),
        steady_ms=ms["steady"],
        presets_ms=kind("preset "),
        resample_ms=ms["resample"] * SIZE.times(2).pixels / _LARGER.out.pixels,
        repeatable=repeatable(parts.values()),
        pairs_ms=kind("pair "),
    )


def repeatable(parts: Iterable[Sequence[float]]) -> bool:
    """Whether the halves of every part's times agree within a fifth, small ones left out."""
    for times in parts:
        half = len(times) // 2
        first, second = median(times[:half]), median(times[half:])
        if max(first, second) > max(1.0, WORST_REPEAT * min(first, second)):
            return False
    return True


def _timed(
    calls: Sequence[Callable[[], object]], *, clock_s: Callable[[], float] = time.thread_time
) -> list[float]:
    times = []
    for call in calls:
        began = clock_s()
        call()
        times.append((clock_s() - began) * 1000)
    return times


def _coded_and_decoded() -> tuple[list[Frame], list[float]]:
    """A panned texture through the codec, as from a publisher, and each picture's decode time."""
    encoder = H264Encoder(SIZE, 25, _SOURCE_BPS, profile="Baseline")
    frames: list[Frame] = []
    clocks: list[float] = []
    done = threading.Event()

    def deliver(frame: Frame) -> None:
        clocks.append(time.thread_time())
        frames.append(frame)

    thread = DecodeThread(
        "measure",
        max_side=SIZE.width,
        clock=MonotonicClock(),
        deliver=deliver,
        refuse=lambda *_: None,
        done=done.set,
    )
    for number, y in enumerate(_texture()):
        half = np.full((SIZE.height // 2, SIZE.width // 2), 128, np.uint8)
        data, keyframe = encoder.encode(
            Planes(y, half, half), number * VIDEO_CLOCK_HZ // 25, keyframe=number == 0
        )
        coded = CodedVideo(Codec.H264, data, keyframe)
        thread.offer(CodedPicture(number * VIDEO_CLOCK_HZ // 25, coded, 0.0))
    encoder.close()
    thread.stop()
    done.wait(_DECODE_S)
    return frames, [(b - a) * 1000 for a, b in pairwise(clocks)]


def _texture() -> list[Plane]:
    rng = np.random.default_rng(0)
    rough = rng.uniform(30, 220, (SIZE.height // 8, SIZE.width // 8)).astype(np.float32)
    smooth = cv2.resize(rough, (SIZE.width, SIZE.height), interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, 4, smooth.shape)
    y = np.clip(smooth + grain, 16, 235).astype(np.uint8)
    return [np.ascontiguousarray(np.roll(y, (t, 2 * t), (0, 1))) for t in range(REPEATS + 2)]


def _bicubic(planes: Planes) -> Planes:
    return Planes(*(enlarge_plane(plane, 2) for plane in planes.each()))


def _encoding(pictures: Sequence[Planes], preset: str) -> list[float]:
    encoder = H264Encoder(pictures[0].size, 25, _OUTPUT_BPS, preset=preset)

    def encode(number: int) -> None:
        encoder.encode(pictures[number], number * VIDEO_CLOCK_HZ // 25, keyframe=number == 0)

    times = _timed([partial(encode, n) for n in range(len(pictures))])
    encoder.close()
    return times[1:]


def _machine() -> str:
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{__version__}, {name}"


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        logger.debug("no costs are remembered: %s", error)
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, costs: Mapping[str, object]) -> None:
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(costs, indent=1))
        part.replace(path)
    except OSError as error:
        logger.debug("the costs could not be remembered: %s", error)
