"""LongLive's cadence without its model: 9 frames, then 12 at once, 16 a second, with a counter.

Blocks are due at fixed times, so that what Scope itself takes does not slow the source. A `burst`
among the load parameters gives blocks of that many instead; `sound` adds sound to each; `stamps`
timestamps. This plugin also puts small random models into our stage, where STREAMLIFT_SCOPE_TINY is
set, so that a change of model changes something.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any, ClassVar

import torch
from scope.core.pipelines.base_schema import BasePipelineConfig, ModeDefaults
from scope.core.pipelines.interface import Pipeline
from scope.core.plugins.hookspecs import hookimpl

FPS = 16
SIDE = 512
BLOCK = 32
FIRST, NEXT = 9, 12
RATE = 48_000


class StandinConfig(BasePipelineConfig):  # type: ignore[misc]  # Scope is not installed here
    """Text mode only, as LongLive."""

    pipeline_id: ClassVar[str] = "longlive-standin"
    pipeline_name: ClassVar[str] = "LongLive stand-in"
    pipeline_description: ClassVar[str] = "A counter in LongLive's cadence."
    modes: ClassVar[dict[str, Any]] = {"text": ModeDefaults(default=True)}


class Standin(Pipeline):  # type: ignore[misc]
    """The counter is 16 blocks of 32x32 in the top row, most significant bit first."""

    def __init__(self, **params: Any) -> None:
        self._number = 0
        self._due_s = 0.0
        self._burst = int(params.get("burst") or 0)
        self._sound = bool(params.get("sound"))
        self._stamps = bool(params.get("stamps"))

    @classmethod
    def get_config_class(cls) -> type[StandinConfig]:
        return StandinConfig

    def __call__(self, **params: Any) -> dict[str, Any]:
        count = self._burst or (FIRST if params.get("init_cache") else NEXT)
        self._due_s = max(self._due_s, time.monotonic() - 1.0) + count / FPS
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        first = self._number
        frames = torch.full((count, SIDE, SIDE, 3), 90, dtype=torch.uint8)
        for index in range(count):
            for bit in range(16):
                on = self._number >> (15 - bit) & 1
                frames[index, :BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 235 if on else 20
            self._number = (self._number + 1) % 65536
        result: dict[str, Any] = {"video": frames}
        if self._sound:
            samples = RATE * count // FPS
            tone = torch.sin(torch.arange(samples) * (440 * 6.2832 / RATE))
            result.update(audio=tone.repeat(2, 1) * 0.2, audio_sample_rate=RATE)
        if self._stamps:
            from scope.server.media_packets import MediaTimestamp

            base = Fraction(1, FPS)
            result["video_timestamps"] = [MediaTimestamp(first + n, base) for n in range(count)]
        return result


@hookimpl  # type: ignore[untyped-decorator]
def register_pipelines(register: Callable[[type], None]) -> None:
    register(Standin)
    if os.environ.get("STREAMLIFT_SCOPE_TINY"):
        _use_tiny_models()


def _use_tiny_models() -> None:
    from streamlift.integrations.scope.postprocessor import Upscale
    from streamlift.upscalers import create_upscaler

    def create(choice: str, device: torch.device) -> Any:
        name = "flashvsr-tiny-random" if choice == "flashvsr" else "toy"
        return create_upscaler(name, device=str(device), settings={})

    Upscale.create = staticmethod(create)
