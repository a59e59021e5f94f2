"""Which tier and precision this machine can run at 512x512@25, measured at start."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from streamlift.frames import Plane
from streamlift.upscalers.compact.network import Tier

__all__ = ["Choice", "Cost", "choose", "measure"]

FRAME_MS = 40.0
"""512x512 at 25 frames a second is what real time is promised for."""

CORE_SHARE = 0.95
"""One stream should take at most one core, with some air, and 0.7 of a smaller machine."""

MACHINE_SHARE = 0.7
LONGEST_MODEL_MS = 30.0
REFERENCE_MS = 16.5
"""Tier s, float32, on the core (AVX512-VNNI, 2 vCPU virtual machine) where REST_MS was taken."""

REST_MS = 28.5
"""CPU ms a frame beside it there: decode 2.2, stabiliser 15, x264 superfast 7.3, WebRTC 4."""

FRAMES, WARM_UP = 20, 2
MEASURE_SIDE = 512


@dataclass(frozen=True, slots=True)
class Cost:
    """One network's ms per 512x512 frame: median CPU of its thread, and p90 of wall time."""

    cpu_ms: float
    wall_p90_ms: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What to run, and why, in words for the log."""

    tier: Tier
    reason: str


def choose(costs: Mapping[Tier, Cost], *, reference_ms: float, cores: int) -> Choice:
    """The largest tier whose whole service fits the budget, or else the cheapest.

    `reference_ms` is tier s in float32 here: the rest of the service is scaled by it.
    """
    rest_ms = REST_MS * reference_ms / REFERENCE_MS
    budget_ms = min(MACHINE_SHARE * cores, CORE_SHARE) * FRAME_MS
    for tier in reversed(Tier):
        cost = costs.get(tier)
        if cost is None or cost.wall_p90_ms >= LONGEST_MODEL_MS:
            continue
        if cost.cpu_ms + rest_ms <= budget_ms:
            return Choice(tier, _words(cost, rest_ms, budget_ms, "fits"))
    cheapest = min(costs, key=lambda tier: costs[tier].cpu_ms)
    verdict = "exceeds, but nothing is cheaper, in"
    return Choice(cheapest, _words(costs[cheapest], rest_ms, budget_ms, verdict))


def measure(enlarge: Callable[[Plane], Plane], *, limit_s: float) -> Cost:
    """Time a network on up to 20 noise frames, or until `limit_s` is over.

    Reads the real clocks on purpose: the machine's speed is what is asked for.
    """
    rng = np.random.default_rng(0)
    picture = rng.integers(16, 236, (MEASURE_SIDE, MEASURE_SIDE), dtype=np.uint8)
    end = time.perf_counter() + limit_s
    cpu, wall = [], []
    for index in range(FRAMES + WARM_UP):
        cpu_before, wall_before = time.thread_time(), time.perf_counter()
        enlarge(picture)
        if index >= WARM_UP:
            cpu.append((time.thread_time() - cpu_before) * 1000)
            wall.append((time.perf_counter() - wall_before) * 1000)
        if cpu and time.perf_counter() > end:
            break
    return Cost(float(np.median(cpu)), float(np.quantile(wall, 0.9)))


def _words(cost: Cost, rest_ms: float, budget_ms: float, verdict: str) -> str:
    return (
        f"network {cost.cpu_ms:.1f} + rest {rest_ms:.1f} CPU ms a frame {verdict} "
        f"a budget of {budget_ms:.1f}"
    )
