"""Reading and editing SDP as text: what an offer asks for, and what our answer adds. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import StrEnum

from streamlift.errors import MalformedSdp, UnsupportedOffer
from streamlift.frames import Codec
from streamlift.media.rtc.candidates import is_address, is_usable
from streamlift.media.rtc.costs import affordable, lines_of, must_be_affordable
from streamlift.media.rtc.formats import Format, read_formats
from streamlift.media.rtc.simulcast import Simulcast, read_simulcast

__all__ = [
    "IceFragment",
    "Offer",
    "OfferedMedia",
    "Role",
    "announced",
    "finish_answer",
    "no_common_format",
    "read_fragment",
    "read_offer",
    "sections_without_candidates",
    "video_formats",
    "with_bundle_led_by",
    "with_start_bitrate",
    "without_candidates",
]

MAX_MEDIA = 4
_MORE_FINGERPRINTS = ("a=fingerprint:sha-384", "a=fingerprint:sha-512")
"""Beside sha-256, which all can. libdatachannel (OBS) keeps the last of several, and checks by
sha-256 all the same when it connects before it has kept our answer: every second handshake failed
between two processes of one machine."""
_CODECS = {"H264": Codec.H264, "VP8": Codec.VP8}
_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")


class Role(StrEnum):
    """Which side of the service a peer is on."""

    PUBLISH = "publish"
    VIEW = "view"


_WANTED = {
    Role.PUBLISH: "VP8, or H264 of any profile and packetization mode, payload type 0-63 or 96-127",
    Role.VIEW: "VP8, or H264 with packetization-mode=1, payload type 0-63 or 96-127",
}
"""The video formats that are taken, in words for a refusal."""


@dataclass(frozen=True, slots=True)
class OfferedMedia:
    """One m-line: kind, mid, direction, and the formats in it, in order."""

    kind: str
    mid: str
    direction: str
    formats: tuple[Format, ...]
    closed: bool = False
    """Port 0: the peer itself does not want it (RFC 9429 section 5.2.2)."""
    simulcast: Simulcast = field(default_factory=Simulcast)

    @property
    def has_opus(self) -> bool:
        return any(f.name == "OPUS" and f.fits(sending=False) for f in self.formats)


@dataclass(frozen=True, slots=True)
class Offer:
    """A checked offer; `sdp` is safe to hand to the WebRTC stack."""

    sdp: str
    media: tuple[OfferedMedia, ...]
    ice_ufrag: str
    role: Role

    @property
    def video(self) -> OfferedMedia:
        return next(m for m in self.media if m.kind == "video")

    @property
    def audio(self) -> OfferedMedia | None:
        return next((m for m in self.media if m.kind == "audio"), None)

    @property
    def video_codecs(self) -> tuple[Codec, ...]:
        """The codecs that can be negotiated with the peer, in its order, each once."""
        return _negotiable(self.video, self.role)


@dataclass(frozen=True, slots=True)
class IceFragment:
    """What a trickle ICE fragment (RFC 8840) brings: usable candidates, without their `a=`."""

    ice_ufrag: str | None
    candidates: tuple[str, ...]


def read_offer(text: str, role: Role) -> Offer:
    """Check an offer against RFC 9725 (WHIP) or draft-ietf-wish-whep and what we can do.

    Raises MalformedSdp when it is not usable SDP, UnsupportedOffer when it asks for what we
    do not do.
    """
    lines = lines_of(text) or [""]
    if lines[0] != "v=0":
        raise MalformedSdp("the body is not SDP", found=lines[0][:40] or "nothing", expected="v=0")
    must_be_affordable(lines)
    lines = _with_directions(lines)
    media = tuple(_read_media(section) for section in _sections(lines))
    _check_media(media, role)
    _check_streams(lines)
    bundled = {mid for line in lines if line.startswith("a=group:BUNDLE") for mid in line.split()}
    if len(media) > 1 and not {m.mid for m in media} <= bundled:
        raise UnsupportedOffer(
            "media must be bundled",
            found=next((x for x in lines if x.startswith("a=group:BUNDLE")), "no a=group:BUNDLE"),
            expected="a=group:BUNDLE " + " ".join(m.mid for m in media),
        )
    _check_transport(lines)
    # mDNS names would be resolved before answering (a second lost); the peer's address shows itself
    # when its checks arrive. Without candidates an end-of-candidates would mean failure, so it
    # goes too. TCP candidates are of no use to a UDP-only agent.
    kept = [
        line
        for line in lines
        if not line.startswith("a=end-of-candidates")
        and not (line.startswith("a=candidate:") and not is_usable(line))
    ]
    kept = affordable(kept)
    return Offer("\r\n".join(kept) + "\r\n", media, _attribute(lines, "ice-ufrag") or "", role)


def read_fragment(text: str) -> IceFragment:
    """Read the body of a trickle PATCH; unusable candidates are left out (RFC 9725 4.3.1).

    Raises MalformedSdp when it is not lines of SDP, UnsupportedOffer when there is too much of it.
    """
    lines = [line for line in lines_of(text) if line]
    for line in lines:
        if not re.match(r"[a-z]=", line):
            raise MalformedSdp(
                "the body is no SDP fragment", found=line[:40], expected="lines such as a=..."
            )
    must_be_affordable(lines)
    candidates = (line for line in lines if line.startswith("a=candidate:"))
    return IceFragment(
        _attribute(lines, "ice-ufrag"), tuple(line[2:] for line in candidates if is_usable(line))
    )


def finish_answer(sdp: str, announce: tuple[str, ...]) -> str:
    """Add what RFC 9725 wants of an answer, and announce only the configured addresses."""
    answer: list[str] = []
    for line in announced(sdp, announce).strip().split("\r\n"):
        if line not in answer[-1:]:
            answer.append(line)
        if line == "a=rtcp-mux":
            answer.append("a=rtcp-mux-only")  # RFC 8858
    return "\r\n".join(answer) + "\r\n"


def with_bundle_led_by(sdp: str, mid: str) -> str:
    """A peer's description whose bundle names `mid` first.

    The first member's transport carries all media; aiortc stops those of the others, and ours is
    that of the section which was added first here, wherever it stands in the peer's.
    """
    lines = sdp.replace("\r\n", "\n").strip().split("\n")
    start = "a=group:BUNDLE "
    for index, line in enumerate(lines):
        if line.startswith(start) and mid in (members := line[len(start) :].split()):
            members.remove(mid)
            lines[index] = start + " ".join([mid, *members])
    return "\r\n".join(lines) + "\r\n"


def without_candidates(sdp: str) -> tuple[str, list[str]]:
    """A peer's description without its candidates and their end, and the candidates.

    aiortc takes those of the last bundled section only, and many peers write them in the first.
    """
    lines = sdp.replace("\r\n", "\n").strip().split("\n")
    candidates = [line for line in lines if line.startswith("a=candidate:")]
    kept = [x for x in lines if not x.startswith(("a=candidate:", "a=end-of-candidates"))]
    return "\r\n".join(kept) + "\r\n", candidates


def video_formats(sdp: str) -> tuple[Format, ...]:
    """The formats of the first video section of a peer's description."""
    sections = _sections(sdp.replace("\r\n", "\n").strip().split("\n"))
    return next((read_formats(s) for s in sections if s[0].startswith("m=video ")), ())


def sections_without_candidates(sdp: str) -> list[str]:
    """The kinds of the open sections in which nobody could reach us."""
    return [
        section[0][2:].split(" ")[0]
        for section in _sections(sdp.replace("\r\n", "\n").strip().split("\n"))
        if section[0].split(" ")[1] != "0"
        and not any(line.startswith("a=candidate:") for line in section)
    ]


def with_start_bitrate(sdp: str, kbit_s: int) -> str:
    """An answer that tells Chromium where to begin its search for the rate of the link.

    It begins at 0.3 Mbit/s otherwise, and at a quarter of the picture for some seconds. Others
    ignore the parameter. Only for sections that receive video.
    """
    hint = f"x-google-start-bitrate={kbit_s}"
    lines = sdp.rstrip("\r\n").split("\r\n")
    formats = {m[1] for line in lines if (m := re.match(r"a=rtpmap:(\d+) (?:VP8|H264)/", line))}
    with_parameters = {m[1] for line in lines if (m := re.match(r"a=fmtp:(\d+) ", line))}
    hinted: list[str] = []
    for line in lines:
        parameters = re.match(r"a=fmtp:(\d+) ", line)
        hinted.append(f"{line};{hint}" if parameters and parameters[1] in formats else line)
        mapped = re.match(r"a=rtpmap:(\d+) ", line)
        if mapped and mapped[1] in formats - with_parameters:
            hinted.append(f"a=fmtp:{mapped[1]} {hint}")
    return "\r\n".join(hinted) + "\r\n"


def announced(sdp: str, announce: tuple[str, ...]) -> str:
    """A description of ours with only the configured addresses; all if none are.

    When none of the configured addresses is the machine's own (a public address behind one-to-one
    NAT), the host candidates are announced under them instead.
    """
    lines = sdp.replace("\r\n", "\n").strip().split("\n")
    hosts = {
        line.split()[4] for line in lines if line.startswith("a=candidate:") and is_usable(line)
    }
    rewrite = not hosts.intersection(announce)
    kept: list[str] = []
    for line in lines:
        if line.startswith(_MORE_FINGERPRINTS):
            continue
        if line.startswith("a=candidate:") and announce:
            kept.extend(_announced(line, announce, rewrite=rewrite))
        else:
            kept.append(line)
    return "\r\n".join(kept) + "\r\n"


def _with_directions(lines: list[str]) -> list[str]:
    """Write down the direction that media without one have (RFC 8866 section 6.7)."""
    sections = _sections(lines)
    session = lines[: len(lines) - sum(map(len, sections))]
    usual = next((line for line in session if line[2:] in _DIRECTIONS), "a=sendrecv")
    for section in sections:
        if not any(line[2:] in _DIRECTIONS for line in section):
            section.append(usual)
    return [*session, *(line for section in sections for line in section)]


def _sections(lines: list[str]) -> list[list[str]]:
    sections: list[list[str]] = []
    for line in lines:
        if line.startswith("m="):
            sections.append([line])
        elif sections:
            sections[-1].append(line)
    return sections


def _read_media(section: list[str]) -> OfferedMedia:
    kind, port = (*section[0][2:].split(" ")[:2], "")[:2]
    closed = port == "0" and "a=bundle-only" not in section
    mid = _attribute(section, "mid") or ""
    direction = next((line[2:] for line in section if line[2:] in _DIRECTIONS), "sendrecv")
    formats = read_formats(section)
    return OfferedMedia(kind, mid, direction, formats, closed, read_simulcast(section))


def _check_media(media: tuple[OfferedMedia, ...], role: Role) -> None:
    kinds = [m.kind for m in media]
    if len(media) > MAX_MEDIA:
        raise UnsupportedOffer("too many media sections", found=len(media), expected=MAX_MEDIA)
    if kinds.count("video") != 1 or kinds.count("audio") > 1 or set(kinds) - {"audio", "video"}:
        raise UnsupportedOffer(
            "one video and at most one audio section are served",
            found=kinds,
            expected=["video", "audio?"],
        )
    wanted = ("sendonly", "sendrecv") if role is Role.PUBLISH else ("recvonly", "sendrecv")
    video = next(m for m in media if m.kind == "video")
    if video.closed:
        raise UnsupportedOffer(
            "the offer closes its own video section", found="port 0", expected="another port"
        )
    if video.direction not in wanted:
        raise UnsupportedOffer(
            f"the video direction does not fit a peer that wants to {role}",
            found=video.direction,
            expected=" or ".join(wanted),
        )
    if not _negotiable(video, role):
        raise no_common_format(video, role)


def no_common_format(offered: OfferedMedia, role: Role) -> UnsupportedOffer:
    """The refusal that tells what was offered and what would be taken."""
    video = offered.kind == "video"
    return UnsupportedOffer(
        f"no {offered.kind} format in common; taken would be {_WANTED[role] if video else 'Opus'}",
        found=[str(f) for f in offered.formats],
        expected=list(_CODECS) if video else ["OPUS"],
    )


def _negotiable(video: OfferedMedia, role: Role) -> tuple[Codec, ...]:
    fitting = (f.name for f in video.formats if f.fits(sending=role is Role.VIEW))
    return tuple(_CODECS[name] for name in dict.fromkeys(fitting) if name in _CODECS)


def _check_streams(lines: list[str]) -> None:
    """All tracks must be of one MediaStream (RFC 9725 section 4.4.2); "-" is none."""
    streams = {line[7:].split(" ")[0] for line in lines if line.startswith("a=msid:")} - {"-"}
    if len(streams) > 1:
        raise UnsupportedOffer(
            "all tracks must belong to one MediaStream", found=len(streams), expected=1
        )


def _check_transport(lines: list[str]) -> None:
    for attribute in ("a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:"):
        if not any(line.startswith(attribute) for line in lines):
            raise MalformedSdp(f"the offer lacks {attribute[2:-1]}", found=None, expected=attribute)


def _attribute(lines: list[str], name: str) -> str | None:
    start = f"a={name}:"
    return next((line[len(start) :] for line in lines if line.startswith(start)), None)


def _announced(line: str, announce: tuple[str, ...], *, rewrite: bool) -> list[str]:
    fields = line.split()
    if len(fields) < 8 or not is_address(fields[4]):
        return []
    if not rewrite:
        return [line] if fields[4] in announce or fields[7] != "host" else []
    if fields[7] != "host":
        return [line]
    version = ipaddress.ip_address(fields[4]).version
    return [
        " ".join([*fields[:4], address, *fields[5:]])
        for address in announce
        if ipaddress.ip_address(address).version == version
    ]
