"""How large the pictures of a coded stream are, read from its headers without decoding."""

from __future__ import annotations

from streamlift.codec.bitstream import parameter_sets
from streamlift.frames import Codec, Size

__all__ = ["picture_size"]

_SPS = 7
_VP8_START = b"\x9d\x01\x2a"
_CHROMA_TOLD = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
"""Profiles whose parameter sets say more (ITU-T H.264, 7.3.2.1.1)."""
_LONGEST = 512
"""Bytes of a parameter set that are looked at; the size stands near its beginning."""


def picture_size(codec: Codec, data: bytes) -> Size | None:
    """The size that an access unit, or the beginning of one, tells; None if it tells none.

    H.264 as Annex B with a sequence parameter set (ITU-T H.264, 7.3.2.1.1), or a VP8 keyframe
    (RFC 6386, 9.1).
    """
    if codec is Codec.VP8:
        if len(data) < 10 or data[0] & 1 or data[3:6] != _VP8_START:
            return None
        sides = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (6, 8))
        return Size(*sides)
    for unit in parameter_sets(data).split(b"\x00\x00\x00\x01"):
        if unit and unit[0] & 0x1F == _SPS:
            try:
                return _sps_size(_Bits(unit[1:_LONGEST]))
            except IndexError:  # it ends too soon
                return None
    return None


class _Bits:
    """Reads bits and Exp-Golomb codes (9.1). Raises IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\x00\x00\x03", b"\x00\x00")  # emulation prevention (7.4.1)
        self._bits = "".join(f"{byte:08b}" for byte in plain)
        self._at = 0

    def take(self, count: int) -> int:
        self._at += count
        if self._at > len(self._bits):
            raise IndexError
        return int(self._bits[self._at - count : self._at] or "0", 2)

    def golomb(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        code = self.golomb()
        return (code + 1) // 2 if code & 1 else -(code // 2)


def _sps_size(bits: _Bits) -> Size | None:
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    chroma = 1
    if profile in _CHROMA_TOLD:
        chroma = bits.golomb()
        if chroma == 3:
            bits.take(1)
        bits.golomb()
        bits.golomb()
        bits.take(1)
        if bits.take(1):
            for index in range(8 if chroma != 3 else 12):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    bits.golomb()
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.golomb()
        bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()
    bits.take(1)
    width, height = 16 * (bits.golomb() + 1), 16 * (bits.golomb() + 1)
    frames_only = bits.take(1)
    height *= 2 - frames_only
    if not frames_only:
        bits.take(1)
    bits.take(1)
    if bits.take(1):
        left, right, top, bottom = (bits.golomb() for _ in range(4))
        width -= (left + right) * (2 if chroma in (1, 2) else 1)
        height -= (top + bottom) * (2 if chroma == 1 else 1) * (2 - frames_only)
    return Size(width, height) if width > 0 and height > 0 else None


def _skip_scaling_list(bits: _Bits, count: int) -> None:
    last = following = 8
    for _ in range(count):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last
