"""One GPU or the CPU: its thread, lanes, scheduling and the temporal stabiliser.

Names are looked up when they are asked for: the CUDA side runs where torch is, without PyAV.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamlift.engine.backend import EngineBackend
    from streamlift.engine.devices import (
        Accelerator,
        accelerators,
        accelerators_apart,
        resolve_device,
    )
    from streamlift.engine.engine import left_behind
    from streamlift.engine.probe import measure_fps

__all__ = [
    "Accelerator",
    "EngineBackend",
    "accelerators",
    "accelerators_apart",
    "left_behind",
    "measure_fps",
    "resolve_device",
]

_HOMES = {
    "Accelerator": "devices",
    "EngineBackend": "backend",
    "accelerators": "devices",
    "accelerators_apart": "devices",
    "left_behind": "engine",
    "measure_fps": "probe",
    "resolve_device": "devices",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
