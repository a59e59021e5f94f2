"""Real-ESRGAN's networks: live streams through `RealESRGAN`, stills through `enhance`."""

from streamlift.upscalers.realesrgan.checkpoint import (
    Net,
    NetConfig,
    build_net,
    interpolate,
    load_net,
    read_config,
)
from streamlift.upscalers.realesrgan.enhance import Alpha, enhance
from streamlift.upscalers.realesrgan.rrdbnet import RRDBNet, RRDBNetConfig
from streamlift.upscalers.realesrgan.srvgg import SRVGGConfig, SRVGGNetCompact
from streamlift.upscalers.realesrgan.upscaler import (
    Precision,
    RealESRGAN,
    RealESRGANSession,
    RealESRGANSettings,
)

__all__ = [
    "Alpha",
    "Net",
    "NetConfig",
    "Precision",
    "RRDBNet",
    "RRDBNetConfig",
    "RealESRGAN",
    "RealESRGANSession",
    "RealESRGANSettings",
    "SRVGGConfig",
    "SRVGGNetCompact",
    "build_net",
    "enhance",
    "interpolate",
    "load_net",
    "read_config",
]
