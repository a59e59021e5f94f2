"""What the CPU path spends on a frame here: the best picture that fits. Pure decisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from streamlift.engine.ladder import FAST_PRESET, Rung
from streamlift.upscalers.compact import Tier

__all__ = ["Costs", "Plan", "make_plan"]

FRAME_MS = 40.0
"""512x512 at 25 frames a second is what real time is promised for."""

MACHINE_SHARE = 0.45
"""Of all cores, for one stream: what is left is for a browser, and for hiccups."""

THREAD_SHARE = 0.9
"""Of one core, for the engine's thread and for the encoder's: what takes longer falls behind."""

EVENT_LOOP_DECODES = 1.75
"""CPU time of WebRTC in and out a frame, in decodings of one: between 1.5 and 2 where measured."""

PICTURE_DB: Mapping[Tier | None, float] = {Tier.M: 0.43, Tier.S: 0.38, Tier.XS: 0.25, None: 0.0}
"""Over bicubic at 1.5 Mbit/s, AI-generated clips; docs/quality.md."""

CALM_DB = 0.1
"""What `lite` is judged worth: it costs a tenth in PSNR and takes a third of the flicker."""

FAST_DB = 0.3
"""What the fastest preset costs of the picture that is seen, at 4 Mbit/s."""


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU ms of the parts of one 512x512 frame, and whether repeats of the measurement agreed."""

    decode_ms: float
    bicubic_ms: float
    tiers_ms: Mapping[str, float]
    steady_ms: float
    presets_ms: Mapping[str, float]
    repeatable: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Which network is loaded, and the rung that a stream begins on."""

    tier: Tier
    rung: Rung
    frame_ms: float
    budget_ms: float

    @property
    def fits(self) -> bool:
        return self.frame_ms <= self.budget_ms

    def words(self) -> str:
        """For the log and `doctor`, one line."""
        small = Tier.XS if self.rung >= Rung.SMALL else self.tier
        shown = "bicubic" if self.rung is Rung.BICUBIC else f"tier {small}"
        calm = "without" if self.rung >= Rung.UNSTEADIED else "with"
        fast = ", fastest coding" if self.rung >= Rung.FAST_CODING else ""
        verdict = "of" if self.fits else "which exceeds"
        return (
            f"{shown} {calm} stabiliser{fast}: {self.frame_ms:.1f} CPU ms a frame "
            f"{verdict} {self.budget_ms:.1f}"
        )


def make_plan(costs: Costs, *, cores: int, preset: str, stabilised: bool) -> Plan:
    """The best picture whose frame fits this machine, or else the cheapest.

    `preset` is the encoder's, `stabilised` whether streams are to be calmed: both are the most that
    is spent. Of equal pictures the one with the larger network is taken, which can be climbed to.
    """
    budget_ms = MACHINE_SHARE * cores * FRAME_MS
    candidates = list(_candidates(costs, budget_ms, preset=preset, stabilised=stabilised))
    fitting = [c for c in candidates if c.plan.fits and c.thread_ms <= THREAD_SHARE * FRAME_MS]
    if fitting:
        return max(fitting, key=lambda c: (c.picture_db, -c.plan.frame_ms)).plan
    return min(candidates, key=lambda c: c.plan.frame_ms).plan


@dataclass(frozen=True, slots=True)
class _Candidate:
    plan: Plan
    picture_db: float
    thread_ms: float
    """The longer of the engine's thread and the encoder's."""


def _candidates(
    costs: Costs, budget_ms: float, *, preset: str, stabilised: bool
) -> Iterator[_Candidate]:
    for name in costs.tiers_ms:
        for rung in Rung:
            if rung is Rung.UNSTEADIED and not stabilised:
                continue
            yield _candidate(costs, budget_ms, Tier(name), rung, preset, stabilised)


def _candidate(
    costs: Costs, budget_ms: float, tier: Tier, rung: Rung, preset: str, stabilised: bool
) -> _Candidate:
    shown: Tier | None = tier
    if rung >= Rung.SMALL:
        shown = None if rung is Rung.BICUBIC else Tier.XS
    network_ms = 0.0
    if shown is not None:
        network_ms = costs.tiers_ms.get(shown, costs.tiers_ms[tier])
    steady = stabilised and rung < Rung.UNSTEADIED
    fast = rung >= Rung.FAST_CODING
    engine_ms = costs.bicubic_ms + network_ms + (costs.steady_ms if steady else 0.0)
    encode_ms = costs.presets_ms[FAST_PRESET if fast else preset]
    frame_ms = costs.decode_ms * (1 + EVENT_LOOP_DECODES) + engine_ms + encode_ms
    picture_db = PICTURE_DB[shown] + (CALM_DB if steady else 0.0) - (FAST_DB if fast else 0.0)
    return _Candidate(Plan(tier, rung, frame_ms, budget_ms), picture_db, max(engine_ms, encode_ms))
