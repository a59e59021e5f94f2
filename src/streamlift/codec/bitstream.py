"""Reading just enough of a coded picture: is it a keyframe?"""

from __future__ import annotations

from streamlift.frames import Codec

__all__ = [
    "has_picture",
    "is_keyframe",
    "nal_types",
    "nal_units",
    "parameter_sets",
    "recovers",
]

_NAL_IDR = 5
_NAL_SEI, _NAL_SPS, _NAL_PPS = 6, 7, 8
_RECOVERY_POINT = 6


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


def recovers(data: bytes) -> bool:
    """Whether an Annex B access unit tells a recovery point (ITU-T H.264 D.2.8): from there on
    pictures become whole without a keyframe, where an encoder refreshes them bit by bit."""
    return any(
        _first_message(u) == _RECOVERY_POINT for u in nal_units(data) if u[0] & 0x1F == _NAL_SEI
    )


def parameter_sets(data: bytes) -> bytes:
    """The sequence and picture parameter sets of an Annex B access unit, as Annex B."""
    wanted = (u for u in nal_units(data) if u[0] & 0x1F in (_NAL_SPS, _NAL_PPS))
    return b"".join(b"\x00\x00\x00\x01" + unit for unit in wanted)


def nal_units(data: bytes) -> list[bytes]:
    """The NAL units of an Annex B access unit that are not empty."""
    # A zero before a start code belongs to that: no unit ends in one (7.4.1).
    units = (unit.rstrip(b"\x00") for unit in data.split(b"\x00\x00\x01")[1:])
    return [unit for unit in units if unit]


def _first_message(sei: bytes) -> int:
    """The type of the first message in an SEI unit; encoders write one to a unit."""
    return sei[1] if len(sei) > 1 else -1
