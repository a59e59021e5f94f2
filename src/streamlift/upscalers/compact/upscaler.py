"""`compact` as an upscaler: luma by the network, chroma by bicubic, never RGB."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from streamlift.errors import ConfigError
from streamlift.frames import Planes, Size
from streamlift.upscalers.base import Pixels, UpscalerSpec
from streamlift.upscalers.bicubic import enlarge_plane
from streamlift.upscalers.compact.effort import Effort
from streamlift.upscalers.compact.network import Network, Precision, Tier, int8_agrees
from streamlift.upscalers.compact.picker import Choice, choose, measure

__all__ = ["Compact", "CompactSession", "Effort"]

logger = logging.getLogger(__name__)

START_LIMIT_S = 2.0
SCALE = 2


@dataclass(frozen=True, slots=True)
class _Networks:
    """What a session may run: the chosen network, and the one to step down to."""

    full: Network
    small: Network


class Compact:
    """Weights of the chosen tier and of `xs` below it; shared by all streams."""

    def __init__(
        self,
        tier: Tier = Tier.S,
        precision: Precision | None = None,
        *,
        reason: str = "asked for",
        threads: int = 1,
    ) -> None:
        """Load one tier. `precision` None: 8-bit where this processor computes it rightly.
        `threads` compute one picture.

        Raises WeightsError when the package's files are missing or damaged.
        """
        self.spec = UpscalerSpec(name="compact", scale=SCALE, multiple=2, pixels=Pixels.YUV420)
        full = _load(tier, precision, threads)
        small = full
        if tier is not Tier.XS:
            small = Network(Tier.XS, full.precision, threads=threads)
        self._networks = _Networks(full, small)
        self.tier = full.tier
        self.precision = full.precision
        logger.info("compact runs tier %s in %s: %s", full.tier, full.precision, reason)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Compact:
        """Settings: `tier` auto, xs, s or m; `precision` auto, fp32 or int8; `threads` 1 or 2, for
        the network. Default: auto, auto, 1.

        `tier: auto` measures this machine for at most 2 s. Raises ConfigError for any other key
        or value, WeightsError as the constructor.
        """
        known = ["tier", "precision", "threads"]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ConfigError("unknown compact setting", found=unknown, expected=known)
        threads = settings.get("threads", 1)
        if threads not in (1, 2) or isinstance(threads, bool):
            raise ConfigError("compact threads must be 1 or 2", found=threads, expected=[1, 2])
        tier = _setting("tier", settings.get("tier", "auto"), Tier)
        precision = _setting("precision", settings.get("precision", "auto"), Precision)
        if tier is not None:
            return cls(tier, precision, threads=threads)
        choice, precision = _measured_choice(precision)
        return cls(choice.tier, precision, reason=choice.reason, threads=threads)

    def session_bytes(self, size: Size) -> int:
        return 0

    def open(self, size: Size, *, seed: int = 0) -> CompactSession:
        return CompactSession(self._networks)


class CompactSession:
    """One frame in, one frame out; remembers nothing but its `effort`."""

    wanted = 1

    def __init__(self, networks: _Networks) -> None:
        self._networks = networks
        self.effort = Effort.FULL

    def push(self, lr: Planes) -> Iterator[Planes]:
        u, v = enlarge_plane(lr.u, SCALE), enlarge_plane(lr.v, SCALE)
        if self.effort is Effort.BICUBIC:
            yield Planes(enlarge_plane(lr.y, SCALE), u, v)
            return
        full = self.effort is Effort.FULL
        network = self._networks.full if full else self._networks.small
        yield Planes(network.enlarge(lr.y), u, v)

    def finish(self) -> Iterator[Planes]:
        yield from ()


def _load(tier: Tier, precision: Precision | None, threads: int) -> Network:
    if precision is not None:
        return Network(tier, precision, threads=threads)
    int8, fp32 = (Network(tier, one, threads=threads) for one in (Precision.INT8, Precision.FP32))
    if int8_agrees(int8, fp32):
        return int8
    logger.warning("compact: this processor computes 8-bit sums inexactly; float32 is used")
    return fp32


def _measured_choice(wanted: Precision | None) -> tuple[Choice, Precision]:
    """Measure on this machine: first the precision, on tier s, then the other tiers in it."""
    end = time.perf_counter() + START_LIMIT_S
    fp32 = Network(Tier.S, Precision.FP32)
    reference = measure(fp32.enlarge, limit_s=START_LIMIT_S / 4)
    precision, cost = Precision.FP32, reference
    if wanted is not Precision.FP32:
        int8 = Network(Tier.S, Precision.INT8)
        int8_cost = measure(int8.enlarge, limit_s=START_LIMIT_S / 4)
        right = int8_cost.cpu_ms < reference.cpu_ms and int8_agrees(int8, fp32)
        if wanted is Precision.INT8 or right:
            precision, cost = Precision.INT8, int8_cost
    costs = {Tier.S: cost}
    for tier in (Tier.M, Tier.XS):
        left_s = end - time.perf_counter()
        if left_s > 0:
            costs[tier] = measure(Network(tier, precision).enlarge, limit_s=left_s / 2)
    choice = choose(costs, reference_ms=reference.cpu_ms, cores=os.cpu_count() or 1)
    return choice, precision


Name = TypeVar("Name", bound=StrEnum)


def _setting(name: str, value: object, kind: type[Name]) -> Name | None:
    """The enum member, or None for "auto"."""
    choices = ["auto", *kind]
    if value not in choices:
        raise ConfigError(
            f"compact {name} must be one of {', '.join(choices)}", found=value, expected=choices
        )
    return None if value == "auto" else kind(str(value))
