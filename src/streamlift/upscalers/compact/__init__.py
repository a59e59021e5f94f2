"""The embedded default: a small luma network with its weights in the package, run on the CPU."""

from streamlift.upscalers.compact.network import Precision, Tier
from streamlift.upscalers.compact.picker import Choice, Cost, choose
from streamlift.upscalers.compact.upscaler import Compact, CompactSession, Effort

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
