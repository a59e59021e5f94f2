"""Video encoding and bitstream helpers.

Names are looked up when they are asked for: only what needs PyAV imports it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamlift.codec.bitstream import (
        has_picture,
        is_keyframe,
        nal_types,
        parameter_sets,
        recovers,
    )
    from streamlift.codec.encoder import (
        AdjustableEncoder,
        H264Encoder,
        VideoEncoder,
        Vp8Encoder,
        encoded_bitrate_bps,
        open_encoder,
    )
    from streamlift.codec.levels import h264_level

__all__ = [
    "AdjustableEncoder",
    "H264Encoder",
    "VideoEncoder",
    "Vp8Encoder",
    "encoded_bitrate_bps",
    "h264_level",
    "has_picture",
    "is_keyframe",
    "nal_types",
    "open_encoder",
    "parameter_sets",
    "recovers",
]

_HOMES = {
    "AdjustableEncoder": "encoder",
    "H264Encoder": "encoder",
    "VideoEncoder": "encoder",
    "Vp8Encoder": "encoder",
    "encoded_bitrate_bps": "encoder",
    "h264_level": "levels",
    "has_picture": "bitstream",
    "is_keyframe": "bitstream",
    "nal_types": "bitstream",
    "open_encoder": "encoder",
    "parameter_sets": "bitstream",
    "recovers": "bitstream",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
