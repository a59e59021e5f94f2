"""Reading just enough of a coded picture: is it a keyframe?"""

from __future__ import annotations

from streamlift.frames import Codec

__all__ = ["is_keyframe", "nal_types"]

_NAL_IDR = 5


def is_keyframe(codec: Codec, data: bytes) -> bool:
    """True for an access unit that can be decoded alone (Annex B H.264, or a VP8 frame)."""
    if codec is Codec.VP8:
        # RFC 6386 section 9.1: bit 0 of the frame tag is 0 for a key frame.
        return bool(data) and not data[0] & 1
    return _NAL_IDR in nal_types(data)


def nal_types(data: bytes) -> list[int]:
    """NAL unit types in an Annex B access unit, in order (ITU-T H.264 table 7-1)."""
    types = []
    at = data.find(b"\x00\x00\x01")
    while at != -1 and at + 3 < len(data):
        types.append(data[at + 3] & 0x1F)
        at = data.find(b"\x00\x00\x01", at + 3)
    return types
