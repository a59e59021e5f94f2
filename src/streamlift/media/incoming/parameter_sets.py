"""H.264 parameter sets that a decoder would not see, kept for the next keyframe. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from streamlift.codec import is_keyframe, nal_types, parameter_sets
from streamlift.frames import Codec

__all__ = ["ParameterSets"]

_MOST_BYTES = 64 * 1024
_NAL_SPS = 7


class ParameterSets:
    """Of a unit without a picture, of one that is dropped, and of the SDP until the stream brings
    its own."""

    def __init__(self) -> None:
        self.told: Mapping[int, bytes] = {}
        """Those of the SDP, as Annex B, by payload type."""
        self._kept = b""
        self._seen = False

    def note(self, payload_type: int, data: bytes) -> None:
        """Look at an access unit (Annex B), whatever becomes of it."""
        sets = parameter_sets(data)
        if sets:
            self._seen = True
            begins = _NAL_SPS in nal_types(sets)
            if is_keyframe(Codec.H264, data):
                self._kept = b"" if begins else self._kept
            else:
                self._kept = sets if begins else (self._kept + sets)[-_MOST_BYTES:]
        elif not self._seen:
            self._kept = self.told.get(payload_type, b"")

    def before(self, keyframe: bytes) -> bytes:
        """The keyframe with what is kept in front of it, which then counts as seen."""
        kept, self._kept = self._kept, b""
        return kept + keyframe
