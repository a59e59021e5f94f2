"""Upscaler models behind one protocol; see `base`."""

from streamlift.upscalers.base import (
    OnCut,
    Parkable,
    Pixels,
    Upscaler,
    UpscalerSpec,
    UpscaleSession,
)
from streamlift.upscalers.registry import create_upscaler, upscaler_names

__all__ = [
    "OnCut",
    "Parkable",
    "Pixels",
    "UpscaleSession",
    "Upscaler",
    "UpscalerSpec",
    "create_upscaler",
    "upscaler_names",
]
