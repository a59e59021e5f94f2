"""The embedded default: a small luma network with its weights in the package, run on the CPU.

Names are looked up when they are asked for: what only schedules sessions needs no OpenCV.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamlift.upscalers.compact.effort import Effort
    from streamlift.upscalers.compact.network import Precision, Tier
    from streamlift.upscalers.compact.picker import Choice, Cost, choose
    from streamlift.upscalers.compact.upscaler import Compact, CompactSession

__all__ = [
    "Choice",
    "Compact",
    "CompactSession",
    "Cost",
    "Effort",
    "Precision",
    "Tier",
    "choose",
]

_HOMES = {
    "Choice": "picker",
    "Compact": "upscaler",
    "CompactSession": "upscaler",
    "Cost": "picker",
    "Effort": "effort",
    "Precision": "network",
    "Tier": "network",
    "choose": "picker",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
