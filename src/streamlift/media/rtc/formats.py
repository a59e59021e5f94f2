"""RTP payload formats in SDP: what a section offers, and which of it is taken. Pure.

The decoder here reads every H.264 there is, so publishers may send any of it: all profiles, both
packetization modes, with or without parameters. Viewers are sent fragmented NAL units (FU-A), so
for them packetization mode 1 is needed (RFC 6184 section 6.2).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Format", "chosen", "read_formats", "sets_by_format", "with_known_h264"]

_RTCP_CONFLICT = range(64, 96)
"""Payload types that look like RTCP where both share a port (RFC 5761 section 4)."""
_KNOWN_H264 = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
_BASELINE = "42"
_ANSWERED = ("level-asymmetry-allowed", "packetization-mode", "profile-level-id")
"""Parameters that an answer repeats; others describe the offerer's own stream."""


@dataclass(frozen=True, slots=True)
class Format:
    """One payload type of a section; `name` in upper case."""

    payload_type: int
    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def packetization_mode(self) -> str:
        return self.parameters.get("packetization-mode", "0")

    @property
    def answered(self) -> dict[str, str]:
        """The parameters for an answer that takes this format."""
        if self.name != "H264":
            return {}
        return {k: v for k, v in self.parameters.items() if k in _ANSWERED}

    @property
    def parameter_sets(self) -> bytes:
        """The H.264 parameter sets told in the SDP, as Annex B; empty if there are none."""
        units = []
        for text in self.parameters.get("sprop-parameter-sets", "").split(","):
            try:
                unit = base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                return b""
            if unit:
                units.append(b"\0\0\0\1" + unit)
        return b"".join(units)

    def __str__(self) -> str:
        told = "".join(f" {key}={value}" for key, value in self.answered.items())
        return f"{self.payload_type} {self.name}{told}"

    def fits(self, *, sending: bool) -> bool:
        """Whether we can send it, or else receive it."""
        if self.payload_type in _RTCP_CONFLICT or not 0 <= self.payload_type < 128:
            return False
        return not (sending and self.name == "H264" and self.packetization_mode != "1")


def read_formats(section: Sequence[str]) -> tuple[Format, ...]:
    """The formats of a media section, in its order; those without a name are left out."""
    names: dict[str, str] = {}
    parameters: dict[str, dict[str, str]] = {}
    for line in section:
        if mapped := re.match(r"a=rtpmap:(\d{1,3}) ([\w.+-]+)/", line):
            names.setdefault(mapped[1], mapped[2].upper())
        elif told := re.match(r"a=fmtp:(\d{1,3}) (.*)", line):
            pairs = (pair.partition("=") for pair in told[2].split(";"))
            parameters.setdefault(told[1], {}).update(
                {key.strip().lower(): value.strip() for key, _, value in pairs if key.strip()}
            )
    listed = [pt for pt in dict.fromkeys(section[0].split()[3:]) if pt in names]
    return tuple(Format(int(pt), names[pt], parameters.get(pt, {})) for pt in listed)


def chosen(formats: Sequence[Format], names: Sequence[str], *, sending: bool) -> tuple[Format, ...]:
    """Of each codec in `names`, in that order, what is taken of the formats offered.

    Of H.264 the baseline formats in packetization mode 1, which every sender and player can do;
    where there is none, the first of the others that fits.
    """
    taken: list[Format] = []
    for name in names:
        fitting = [f for f in formats if f.name == name and f.fits(sending=sending)]
        usual = [f for f in fitting if _is_usual(f)]
        # The sort is stable: among equals the order is the peer's.
        others = sorted(fitting, key=lambda f: f.packetization_mode != "1")
        taken += usual or others[:1]
    return tuple(taken)


def sets_by_format(formats: Sequence[Format]) -> dict[int, bytes]:
    """H.264 parameter sets by payload type, for `incoming.video_in`."""
    return {f.payload_type: f.parameter_sets for f in formats if f.parameter_sets}


def with_known_h264(sdp: str) -> str:
    """A description in which all H.264 is of the kind that aiortc knows.

    It looks for a format that it can encode itself, which nobody asks of it here.
    https://github.com/aiortc/aiortc/blob/1.16.0/src/aiortc/rtcpeerconnection.py
    (find_common_codecs)
    """
    lines = sdp.rstrip("\r\n").split("\r\n")
    h264 = {m[1] for line in lines if (m := re.match(r"(?i)a=rtpmap:(\d+) H264/", line))}
    known: list[str] = []
    for line in lines:
        if (told := re.match(r"a=fmtp:(\d+) ", line)) and told[1] in h264:
            continue
        known.append(line)
        if (mapped := re.match(r"a=rtpmap:(\d+) ", line)) and mapped[1] in h264:
            known.append(f"a=fmtp:{mapped[1]} {_KNOWN_H264}")
    return "\r\n".join(known) + "\r\n"


def _is_usual(h264: Format) -> bool:
    """Baseline, constrained or not, in packetization mode 1; False for other codecs."""
    profile = h264.parameters.get("profile-level-id", "")
    return h264.packetization_mode == "1" and profile.startswith(_BASELINE)
