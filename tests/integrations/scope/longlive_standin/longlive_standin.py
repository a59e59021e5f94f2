"""LongLive's cadence without its model: 9 frames, then 12 at once, 16 a second, with a counter."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from scope.core.pipelines.base_schema import BasePipelineConfig, ModeDefaults
from scope.core.pipelines.interface import Pipeline
from scope.core.plugins.hookspecs import hookimpl

FPS = 16
SIDE = 512
BLOCK = 32
FIRST, NEXT = 9, 12


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

    @classmethod
    def get_config_class(cls) -> type[StandinConfig]:
        return StandinConfig

    def __call__(self, **params: Any) -> dict[str, Any]:
        count = FIRST if params.get("init_cache") else NEXT
        time.sleep(count / FPS)
        frames = torch.full((count, SIDE, SIDE, 3), 90, dtype=torch.uint8)
        for index in range(count):
            for bit in range(16):
                on = self._number >> (15 - bit) & 1
                frames[index, :BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 235 if on else 20
            self._number = (self._number + 1) % 65536
        return {"video": frames}


@hookimpl  # type: ignore[untyped-decorator]
def register_pipelines(register: Callable[[type], None]) -> None:
    register(Standin)
