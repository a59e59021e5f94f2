"""What RTMP carries: H.264 and AAC as FLV tags hold them (Adobe's FLV 10.1, annex E)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from streamlift.codec.bitstream import nal_units
from streamlift.errors import MediaError

__all__ = ["AvcUnit", "aac_header", "aac_sound", "avc_header", "avc_picture", "read_unit"]

_SPS, _PPS, _DELIMITER = 7, 8, 9
_AVC, _KEYFRAME, _PREDICTED = 7, 1, 2
_HEADER, _MEDIA = 0, 1
_AAC_STEREO = 0xAF
"""AAC; the rate, depth and channels that it names are fixed, the header says the true ones."""
_WITH_CHROMA = (100, 110, 122, 144)
"""Profiles whose record says the chroma format (ISO/IEC 14496-15 section 5.3.3.1.2)."""


@dataclass(frozen=True, slots=True)
class AvcUnit:
    """An access unit without its start codes; the parameter sets apart, empty if it has none."""

    sps: bytes
    pps: bytes
    picture: tuple[bytes, ...]


def read_unit(data: bytes) -> AvcUnit:
    """From Annex B."""
    units = nal_units(data)
    kinds = [unit[0] & 0x1F for unit in units]
    return AvcUnit(
        next((u for u, kind in zip(units, kinds, strict=True) if kind == _SPS), b""),
        next((u for u, kind in zip(units, kinds, strict=True) if kind == _PPS), b""),
        tuple(
            u for u, kind in zip(units, kinds, strict=True) if kind not in (_SPS, _PPS, _DELIMITER)
        ),
    )


def avc_header(unit: AvcUnit) -> bytes:
    """The tag that must come before pictures: AVCDecoderConfigurationRecord (ISO/IEC 14496-15).

    Raises MediaError when the unit has no parameter sets.
    """
    sps, pps = unit.sps, unit.pps
    if len(sps) < 4 or not pps:
        raise MediaError("the first picture lacks its parameter sets", expected="SPS and PPS")
    record = bytes([1, *sps[1:4], 0xFF, 0xE1]) + struct.pack("!H", len(sps)) + sps
    record += b"\x01" + struct.pack("!H", len(pps)) + pps
    if sps[1] in _WITH_CHROMA:
        record += bytes([0xFD, 0xF8, 0xF8, 0])  # 4:2:0, 8 bits, as all that is encoded here
    return bytes([_KEYFRAME << 4 | _AVC, _HEADER, 0, 0, 0]) + record


def avc_picture(unit: AvcUnit, *, keyframe: bool) -> bytes:
    """A picture, each of its units with its length; shown when it is decoded (no B-frames)."""
    kind = _KEYFRAME if keyframe else _PREDICTED
    units = b"".join(struct.pack("!I", len(u)) + u for u in unit.picture)
    return bytes([kind << 4 | _AVC, _MEDIA, 0, 0, 0]) + units


def aac_header(config: bytes) -> bytes:
    """The tag that must come before sound; `config` is the AudioSpecificConfig."""
    return bytes([_AAC_STEREO, _HEADER]) + config


def aac_sound(data: bytes) -> bytes:
    """One raw AAC frame."""
    return bytes([_AAC_STEREO, _MEDIA]) + data
