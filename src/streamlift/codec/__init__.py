"""Video encoding and bitstream helpers."""

from streamlift.codec.bitstream import has_picture, is_keyframe, nal_types, parameter_sets, recovers
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
