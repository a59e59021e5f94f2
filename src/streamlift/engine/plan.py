"""What the CPU path spends on a frame here: the best picture that fits. Pure decisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from streamlift.engine.ladder import FAST_PRESET, Rung
from streamlift.frames import PlanInfo
from streamlift.upscalers.compact import Tier

__all__ = ["PAIR_CORES", "Costs", "Plan", "make_plan"]

FRAME_MS = 40.0
"""512x512 at 25 frames a second is what real time is promised for."""

MACHINE_SHARE = 0.45
"""Of all cores, for one stream: what is left is for a browser, and for hiccups."""

THREAD_SHARE = 0.9
"""Of one core, for the engine's thread and for the encoder's: what takes longer falls behind."""

MODEL_SCALE = 2
"""Of `compact`, whose plan it is."""

PAIR_CORES = 4
"""From so many cores on the network may compute one picture on two threads."""

SHORTENS = 0.8
"""A pair of threads is worth its overhead where it takes no longer than that part of one's time."""

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
    """CPU ms of the parts of one 512x512 frame, and whether repeats of the measurement agreed.

    `resample_ms`: of one upscaled picture, for as many pixels as it has. `pairs_ms`: wall time of
    tiers on two threads, measured where there are cores for it.
    """

    decode_ms: float
    bicubic_ms: float
    tiers_ms: Mapping[str, float]
    steady_ms: float
    presets_ms: Mapping[str, float]
    resample_ms: float
    repeatable: bool
    pairs_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which network is loaded, on how many threads, and the rung that a stream begins on."""

    tier: Tier
    rung: Rung
    frame_ms: float
    budget_ms: float
    cores: int
    threads: int = 1

    @property
    def fits(self) -> bool:
        return self.frame_ms <= self.budget_ms

    def words(self) -> str:
        """For the log and `doctor`, one line."""
        calm = "without" if self.rung >= Rung.UNSTEADIED else "with"
        fast = ", fastest coding" if self.rung >= Rung.FAST_CODING else ""
        pair = ", network on two threads" if self.threads > 1 else ""
        verdict = "of" if self.fits else "which exceeds"
        cores = "one core" if self.cores == 1 else f"{self.cores} cores"
        return (
            f"{self._shown} {calm} stabiliser{fast}{pair}: {self.frame_ms:.1f} CPU ms a frame "
            f"{verdict} {self.budget_ms:.1f} on {cores}"
        )

    def info(self) -> PlanInfo:
        """For the API."""
        return PlanInfo(
            words=self.words(),
            picture=self._shown,
            frame_ms=self.frame_ms,
            budget_ms=self.budget_ms,
            cores=self.cores,
            threads=self.threads,
        )

    @property
    def _shown(self) -> str:
        small = Tier.XS if self.rung >= Rung.SMALL else self.tier
        return "bicubic" if self.rung is Rung.BICUBIC else f"tier {small}"


def make_plan(
    costs: Costs, *, cores: int, preset: str, stabilised: bool, scale: float | None = None
) -> Plan:
    """The best picture whose frame fits this machine, or else the cheapest.

    `preset` is the encoder's, `stabilised` whether streams are to be calmed: both are the most that
    is spent. `scale`: of what comes out, where it is not the model's. Of equal pictures the one
    with the larger network is taken, which can be climbed to, and the network is given two threads
    where that shortens the frame.
    """
    costs = costs if scale is None else _at_scale(costs, scale)
    candidates = list(_candidates(costs, cores, preset=preset, stabilised=stabilised))
    fitting = [c for c in candidates if c.plan.fits and c.thread_ms <= THREAD_SHARE * FRAME_MS]
    if fitting:
        return max(fitting, key=lambda c: (c.picture_db, c.plan.threads, -c.plan.frame_ms)).plan
    return min(candidates, key=lambda c: c.plan.frame_ms).plan


def _at_scale(costs: Costs, scale: float) -> Costs:
    """Coding goes with the pixels that come out; resampling with the more of both its sides."""
    larger = (scale / MODEL_SCALE) ** 2
    resampled_ms = 0.0 if scale == MODEL_SCALE else costs.resample_ms * max(1.0, larger)
    presets_ms = {name: ms * larger + resampled_ms for name, ms in costs.presets_ms.items()}
    return replace(costs, presets_ms=presets_ms)


@dataclass(frozen=True, slots=True)
class _Candidate:
    plan: Plan
    picture_db: float
    thread_ms: float
    """The longer of the engine's thread and the encoder's."""


def _candidates(costs: Costs, cores: int, *, preset: str, stabilised: bool) -> Iterator[_Candidate]:
    for name in costs.tiers_ms:
        for rung in Rung:
            if rung is Rung.UNSTEADIED and not stabilised:
                continue
            for threads in (1, 2):
                plan = Plan(Tier(name), rung, 0.0, MACHINE_SHARE * cores * FRAME_MS, cores, threads)
                candidate = _candidate(costs, plan, preset, stabilised)
                if candidate is not None:
                    yield candidate


def _candidate(costs: Costs, plan: Plan, preset: str, stabilised: bool) -> _Candidate | None:
    """None where two threads are no gain."""
    tier, rung = plan.tier, plan.rung
    shown: Tier | None = tier
    if rung >= Rung.SMALL:
        shown = None if rung is Rung.BICUBIC else Tier.XS
    network_ms = 0.0
    if shown is not None:
        network_ms = costs.tiers_ms.get(shown, costs.tiers_ms[tier])
    network_wall_ms = network_ms
    if plan.threads == 2:
        network_wall_ms = costs.pairs_ms.get(shown or "", float("inf"))
        if plan.cores < PAIR_CORES or network_wall_ms > SHORTENS * network_ms:
            return None
        network_ms = 2 * network_wall_ms
    steady = stabilised and rung < Rung.UNSTEADIED
    fast = rung >= Rung.FAST_CODING
    rest_ms = costs.bicubic_ms + (costs.steady_ms if steady else 0.0)
    thread_ms = rest_ms + network_wall_ms
    encode_ms = costs.presets_ms[FAST_PRESET if fast else preset]
    frame_ms = costs.decode_ms * (1 + EVENT_LOOP_DECODES) + rest_ms + network_ms + encode_ms
    picture_db = PICTURE_DB[shown] + (CALM_DB if steady else 0.0) - (FAST_DB if fast else 0.0)
    return _Candidate(replace(plan, frame_ms=frame_ms), picture_db, max(thread_ms, encode_ms))
