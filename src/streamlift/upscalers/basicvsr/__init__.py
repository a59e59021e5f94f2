"""BasicVSR++ and RealBasicVSR: nets that look both ways in a clip, for files first."""

from streamlift.upscalers.basicvsr.basicvsrpp import BasicVSRpp, BasicVSRppConfig
from streamlift.upscalers.basicvsr.checkpoint import generator_tensors, load_net
from streamlift.upscalers.basicvsr.realbasicvsr import Cleaning, RealBasicVSR, RealBasicVSRConfig
from streamlift.upscalers.basicvsr.settings import BasicVSRSettings
from streamlift.upscalers.basicvsr.upscaler import BasicVSR
from streamlift.upscalers.basicvsr.window import SMALLEST_WINDOW, Window, WindowSession

__all__ = [
    "SMALLEST_WINDOW",
    "BasicVSR",
    "BasicVSRSettings",
    "BasicVSRpp",
    "BasicVSRppConfig",
    "Cleaning",
    "RealBasicVSR",
    "RealBasicVSRConfig",
    "Window",
    "WindowSession",
    "generator_tensors",
    "load_net",
]
