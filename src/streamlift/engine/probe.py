"""How fast an upscaler is here: frames of noise through the same chain as a lane's."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from streamlift.clock import VIDEO_CLOCK_HZ, MonotonicClock
from streamlift.engine.chain import UpscaleChain, Upscaled
from streamlift.errors import NotReady
from streamlift.frames import Colour, Frame, Planes, Size, Stabilise
from streamlift.upscalers import Upscaler

__all__ = ["PROBE_SIZE", "SMALL_PROBE", "lit_noise", "measure_fps", "use_up"]

PROBE_SIZE = Size(512, 512)
_PROBE_FRAMES = 20
_PROBE_LIMIT_S = 2.0
SMALL_PROBE = Size(128, 128)

_TOO_SLOW_S = 10.0
"""For a model's first pictures at the quarter size: it is none for live video here."""


def measure_fps(
    upscaler: Upscaler,
    device: str,
    *,
    stabilise: Stabilise = Stabilise.OFF,
    ends: Callable[[], bool] = lambda: False,
) -> float:
    """Frames a second at 512x512 on noise, conversions included, and `stabilise` if it is on.

    A quarter-size probe comes first: where the full one would take too long (a GPU model on a
    CPU), its figure is scaled by the number of pixels instead. Raises NotReady as soon as `ends`
    says so.
    """
    probe = partial(_run_probe, upscaler, device, stabilise=stabilise, ends=ends)
    small = probe(SMALL_PROBE, frames=upscaler.spec.step)
    scaled = small * SMALL_PROBE.pixels / PROBE_SIZE.pixels
    if device == "cpu" and _PROBE_FRAMES / scaled > _PROBE_LIMIT_S:
        return scaled
    return probe(PROBE_SIZE, frames=_PROBE_FRAMES)


def _run_probe(
    upscaler: Upscaler,
    device: str,
    size: Size,
    *,
    frames: int,
    stabilise: Stabilise,
    ends: Callable[[], bool],
) -> float:
    chain = UpscaleChain(upscaler, device, stabilise, clock=MonotonicClock())
    noise = lit_noise(size)

    def push() -> None:
        if ends():
            raise NotReady("the service is shutting down")
        use_up(chain.push, next(noise))

    spec = upscaler.spec
    began = time.perf_counter()
    for _ in range(spec.first):
        push()
    taken_s = time.perf_counter() - began
    if device == "cpu" and taken_s > _TOO_SLOW_S:
        return spec.step / taken_s  # a second look, which may take minutes, would tell no more
    for _ in range(spec.step):
        push()
    count = -(-frames // spec.step) * spec.step
    # Wall time is what counts here: it is the thing a stream has to fit into.
    started = time.perf_counter()
    for _ in range(count):
        push()
    taken_s = time.perf_counter() - started
    use_up(chain.finish)
    return count / taken_s


def lit_noise(size: Size, count: int | None = None) -> Iterator[Frame]:
    """Frames of lit noise, endless without a `count`."""
    noise = np.random.default_rng(0).integers(16, 235, (size.height, size.width), dtype=np.uint8)
    half = np.ascontiguousarray(noise[::2, ::2])
    for number in itertools.count() if count is None else range(count):
        pts = number * VIDEO_CLOCK_HZ // 25
        yield Frame(pts, size, Planes(noise, half, half), Colour(), arrived_s=0.0)


def use_up(work: Callable[..., Iterator[Upscaled]], *frames: Frame) -> None:
    for _ in work(*frames):  # a picture is in host memory when it comes out
        pass
