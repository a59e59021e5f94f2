"""RTP payloads to coded bytes: H.264 (RFC 6184) as Annex B, VP8 (RFC 7741). Pure.

Lenient where a decoder is: a payload that cannot be read gives what is whole of it, perhaps
nothing. aiortc drops such a packet, and one byte of H.264 (an end of sequence) with it, which then
counts as lost and is waited for.
"""

from __future__ import annotations

from aiortc.codecs.vpx import vp8_depayload

__all__ = ["h264_depayload", "lenient_vp8"]

_START = b"\0\0\0\1"
_STAP_A, _FU_A = 24, 28
_SINGLE = range(1, 24)


def h264_depayload(payload: bytes) -> bytes:
    """The NAL units of one packet, each behind a start code; of a fragment but the first, more."""
    if not payload:
        return b""
    kind = payload[0] & 0x1F
    if kind in _SINGLE:
        return _START + payload
    if kind == _STAP_A:
        return _aggregated(payload)
    if kind == _FU_A and len(payload) > 1:
        if payload[1] & 0x80:  # the first fragment
            return _START + bytes([payload[0] & 0xE0 | payload[1] & 0x1F]) + payload[2:]
        return payload[2:]
    return b""  # of the interleaved mode, which is never negotiated


def lenient_vp8(payload: bytes) -> bytes:
    """The part of a VP8 frame in one packet."""
    try:
        return vp8_depayload(payload)
    except ValueError:
        return b""


def _aggregated(payload: bytes) -> bytes:
    units: list[bytes] = []
    at = 1
    while at + 2 <= len(payload):
        size = int.from_bytes(payload[at : at + 2], "big")
        unit = payload[at + 2 : at + 2 + size]
        if len(unit) < size:
            break
        if unit:
            units.append(_START + unit)
        at += 2 + size
    return b"".join(units)
