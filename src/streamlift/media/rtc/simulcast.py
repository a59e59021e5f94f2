"""A publisher that offers one picture in several sizes (RFC 8853): which are asked for. Pure.

An answer that is silent about simulcast gets the first size, which for many pages is the smallest.
Where the offer leaves no doubt which is the largest, that alone is asked for. Of those that come,
what arrives decides (`incoming.layers`): some peers send all, whatever they are answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["REPAIRED_URI", "RID_URI", "Simulcast", "read_simulcast", "with_layers"]

RID_URI = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
REPAIRED_URI = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
_NAMES = (
    ("f", "h", "q"),
    ("full", "half", "quarter"),
    ("high", "medium", "low"),
    ("high", "mid", "low"),
    ("hi", "mid", "lo"),
    ("h", "m", "l"),
    ("l", "m", "s"),
    ("large", "medium", "small"),
)
"""Names that publishers give to sizes, the largest first: nothing else in an offer tells."""


@dataclass(frozen=True, slots=True)
class Simulcast:
    """What a media section says of several sizes.

    `several`: more than one is offered, by rid or by SSRC. `rids`: those to ask for. `repairs`:
    the media SSRC of each that carries retransmissions (RFC 4588).
    """

    several: bool = False
    rids: tuple[str, ...] = ()
    repairs: Mapping[int, int] = field(default_factory=dict)


def read_simulcast(section: Sequence[str]) -> Simulcast:
    """Read a media section, its m-line first."""
    rids = _offered(section)
    groups = [x[13:].split() for x in section if x.startswith("a=ssrc-group:")]
    told = [g for g in groups if all(re.fullmatch(r"[0-9]{1,10}", ssrc) for ssrc in g[1:])]
    several = len(rids) > 1 or any(g[:1] == ["SIM"] and len(g) > 2 for g in told)
    repairs = {int(g[2]): int(g[1]) for g in told if g[:1] == ["FID"] and len(g) == 3}
    return Simulcast(several, _wanted(section, rids), repairs)


def with_layers(answer: str, rids: Sequence[str]) -> str:
    """An answer that asks for these layers in its video section."""
    head, video, rest = answer.partition("m=video ")
    section, following, after = rest.partition("\r\nm=")
    asked = "".join(f"\r\na=rid:{rid} recv" for rid in rids)
    lines = section.rstrip("\r\n") + f"{asked}\r\na=simulcast:recv {';'.join(rids)}"
    return head + video + lines + (following + after if following else "\r\n")


def _offered(section: Sequence[str]) -> list[str]:
    offered = next((x for x in section if x.startswith("a=simulcast:")), "")
    if not (sent := re.search(r"(?:^a=simulcast:| )send (\S+)", offered)):
        return []
    # Alternatives are separated by commas, and ~ marks what is paused at first.
    rids = [choice.split(",")[0].lstrip("~") for choice in sent[1].split(";")]
    known = {m[1] for x in section if (m := re.match(r"a=rid:(\S+) send\b", x))}
    return [x for x in dict.fromkeys(rids) if x in known and re.fullmatch(r"[A-Za-z0-9_-]+", x)]


def _wanted(section: Sequence[str], rids: Sequence[str]) -> tuple[str, ...]:
    """The largest alone, where restrictions or usual names tell it.

    Else all, if they are two, or numbered from 0 (OBS begins with the largest). Of more than two
    with other names the last: Chromium sends only the first two of three sizes below 960x540, and
    pages that number them mostly rise (r0, r1, r2).
    """
    described = {m[1]: m[2] for x in section if (m := re.match(r"a=rid:(\S+) send ?(.*)", x))}
    areas = {rid: _area(described[rid]) for rid in rids}
    if areas and all(areas.values()):
        return (max(rids, key=lambda rid: areas[rid]),)
    lowered = {rid.lower(): rid for rid in rids}
    for names in _NAMES:
        if lowered and set(lowered) <= set(names):
            return (lowered[next(name for name in names if name in lowered)],)
    return tuple(rids if len(rids) <= 2 or "0" in rids else rids[-1:])


def _area(restrictions: str) -> int:
    """Pixels of the largest picture that the restrictions of a rid allow; 0 if they tell none."""
    told = dict(pair.partition("=")[::2] for pair in restrictions.split(";"))
    sides = [told.get(key, "").strip() for key in ("max-width", "max-height")]
    if all(re.fullmatch(r"\d{1,5}", side) for side in sides):
        return int(sides[0]) * int(sides[1])
    return 0
