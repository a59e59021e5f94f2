"""One GPU or the CPU: its thread, lanes, scheduling and the temporal stabiliser."""

from streamlift.engine.backend import EngineBackend, measure_fps
from streamlift.engine.devices import Accelerator, accelerators, resolve_device
from streamlift.engine.engine import left_behind

__all__ = [
    "Accelerator",
    "EngineBackend",
    "accelerators",
    "left_behind",
    "measure_fps",
    "resolve_device",
]
