"""Video encoding and bitstream helpers."""

from streamlift.codec.bitstream import is_keyframe, nal_types
from streamlift.codec.encoder import (
    AdjustableEncoder,
    H264Encoder,
    VideoEncoder,
    Vp8Encoder,
    open_encoder,
)
from streamlift.codec.levels import h264_level

__all__ = [
    "AdjustableEncoder",
    "H264Encoder",
    "VideoEncoder",
    "Vp8Encoder",
    "h264_level",
    "is_keyframe",
    "nal_types",
    "open_encoder",
]
