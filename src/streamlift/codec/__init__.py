"""Video encoding and bitstream helpers."""

from streamlift.codec.bitstream import is_keyframe, nal_types
from streamlift.codec.encoder import (
    THIN,
    AdjustableEncoder,
    H264Encoder,
    VideoEncoder,
    Vp8Encoder,
    encoded_bitrate_bps,
    open_encoder,
)
from streamlift.codec.levels import h264_level

__all__ = [
    "THIN",
    "AdjustableEncoder",
    "H264Encoder",
    "VideoEncoder",
    "Vp8Encoder",
    "encoded_bitrate_bps",
    "h264_level",
    "is_keyframe",
    "nal_types",
    "open_encoder",
]
