"""Colour tags of files: what players take an untagged clip for, and what the result must say.

Numbers are those of ITU-T H.273: matrix, primaries, transfer; 2 is unspecified.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamlift.frames import Colour, Size

__all__ = ["BT601", "BT709", "BT2020", "UNSPECIFIED", "ColourTags", "judged_matrix"]

UNSPECIFIED = 2
BT709, BT601, BT2020 = 1, 6, 9
_RGB, _FCC, _BT470BG, _SMPTE240M = 0, 4, 5, 7
PQ, HLG = 16, 18
LIMITED, FULL = 1, 2

_NAMES = {BT709: "bt709", _BT470BG: "bt601", BT601: "bt601", _FCC: "bt601", BT2020: "bt2020"}
_NAMES[_SMPTE240M] = "bt709"  # its weights differ by less than a level


def judged_matrix(size: Size) -> int:
    """The matrix that players take for an untagged picture of this size (mpv, VLC, browsers)."""
    return BT709 if size.width >= 1280 or size.height > 576 else BT601


@dataclass(frozen=True, slots=True)
class ColourTags:
    """As written in the source; `full_range` None where nothing is written."""

    matrix: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    full_range: bool | None = None
    rgb: bool = False

    @property
    def hdr(self) -> bool:
        """Whether the transfer is PQ or HLG."""
        return self.transfer in (PQ, HLG)

    @property
    def name(self) -> str:
        """For messages: what kind of HDR."""
        return {PQ: "PQ", HLG: "HLG"}.get(self.transfer, "SDR")

    def matrix_of(self, size: Size) -> int:
        """The matrix that the picture is shown by."""
        if self.rgb or self.matrix in (UNSPECIFIED, _RGB):
            return judged_matrix(size)
        return self.matrix

    def model_colour(self, size: Size) -> Colour:
        """The colour as the models know it. Matrices without weights of luma come as BT.601."""
        return Colour(_NAMES.get(self.matrix_of(size), "bt601"), bool(self.full_range))

    def convertible(self, size: Size) -> bool:
        """Whether RGB can be made by the weights of luma (not ICtCp, not YCgCo)."""
        return self.matrix_of(size) in _NAMES
