"""Reading just enough of a coded picture: is it a keyframe?"""

from __future__ import annotations

from streamlift.frames import Codec

__all__ = ["has_picture", "is_keyframe", "nal_types", "parameter_sets"]

_NAL_IDR = 5
_NAL_SPS, _NAL_PPS = 7, 8


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


def has_picture(data: bytes) -> bool:
    """Whether an Annex B access unit has a slice: parameter sets may come in one without."""
    return any(1 <= kind <= _NAL_IDR for kind in nal_types(data))


def parameter_sets(data: bytes) -> bytes:
    """The sequence and picture parameter sets of an Annex B access unit, as Annex B."""
    sets = []
    at = data.find(b"\x00\x00\x01")
    while at != -1:
        end = data.find(b"\x00\x00\x01", at + 3)
        unit = data[at + 3 : end if end != -1 else len(data)]
        if unit and unit[0] & 0x1F in (_NAL_SPS, _NAL_PPS):
            # A zero before the next start code belongs to that: no unit ends in one (7.4.1).
            sets.append(b"\x00\x00\x00\x01" + unit.rstrip(b"\x00"))
        at = end
    return b"".join(sets)
