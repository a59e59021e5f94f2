"""A publisher that offers one picture in several sizes (RFC 8853): the largest is asked for. Pure.

An answer that is silent about simulcast gets the first size, which for many pages is the smallest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["RID_URI", "largest_layer", "with_layer"]

RID_URI = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
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


def largest_layer(section: Sequence[str]) -> str | None:
    """The rid of the largest picture offered in a media section; None without simulcast."""
    offered = next((x for x in section if x.startswith("a=simulcast:")), "")
    if not (sent := re.search(r"(?:^a=simulcast:| )send (\S+)", offered)):
        return None
    # Alternatives are separated by commas, and ~ marks what is paused at first.
    rids = [choice.split(",")[0].lstrip("~") for choice in sent[1].split(";")]
    described = {m[1]: m[2] for x in section if (m := re.match(r"a=rid:(\S+) send ?(.*)", x))}
    rids = [rid for rid in rids if rid in described and re.fullmatch(r"[A-Za-z0-9_-]+", rid)]
    if not rids:
        return None
    if len(areas := {rid: _area(described[rid]) for rid in rids}) and all(areas.values()):
        return max(rids, key=lambda rid: areas[rid])
    lowered = {rid.lower(): rid for rid in rids}
    for names in _NAMES:
        if set(lowered) <= set(names):
            return lowered[next(name for name in names if name in lowered)]
    numbers = {rid: re.search(r"\d+$", rid) for rid in rids}
    if all(numbers.values()):
        return max(rids, key=lambda rid: int(re.sub(r"\D", "", rid) or 0))
    return rids[-1]


def with_layer(answer: str, rid: str) -> str:
    """An answer that asks for this layer alone in its video section."""
    head, video, rest = answer.partition("m=video ")
    section, following, after = rest.partition("\r\nm=")
    lines = section.rstrip("\r\n") + f"\r\na=rid:{rid} recv\r\na=simulcast:recv {rid}"
    return head + video + lines + (following + after if following else "\r\n")


def _area(restrictions: str) -> int:
    """Pixels of the largest picture that the restrictions of a rid allow; 0 if they tell none."""
    told = dict(pair.partition("=")[::2] for pair in restrictions.split(";"))
    sides = [told.get(key, "").strip() for key in ("max-width", "max-height")]
    if all(re.fullmatch(r"\d{1,5}", side) for side in sides):
        return int(sides[0]) * int(sides[1])
    return 0
