"""What a peer's description may cost the library that reads it. Pure, and linear in its bytes.

aiortc looks at each format for each line that may be about one, and at each source for each line
that is; on the event loop. 30 KB of the right lines took it 15 s. So what nobody here negotiates
is left out, each format is named once, and the rest is counted before aiortc sees it.
https://github.com/aiortc/aiortc/blob/1.16.0/src/aiortc/sdp.py (SessionDescription.parse)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from streamlift.errors import UnsupportedOffer

__all__ = ["MAX_WORK", "affordable", "lines_of", "must_be_affordable", "work"]

MAX_WORK = 20_000
_NEGOTIATED = {
    "video": ("H264", "VP8", "RTX"),
    "audio": ("OPUS", "PCMU", "PCMA", "G722", "RTX"),
}
_FEEDBACK = ("nack", "nack pli", "ccm fir", "goog-remb", "transport-cc")
_ABOUT_FORMAT = re.compile(r"a=(?:rtpmap|fmtp|rtcp-fb):(\d+) ")
_MAPPED = re.compile(r"a=rtpmap:(\d+) ([\w.+-]+)/")
_SOURCE = re.compile(r"a=ssrc:(\d+) ")


def lines_of(text: str) -> list[str]:
    """The lines that the library will see: it ends them at more than CR and LF."""
    return text.strip().splitlines()


def affordable(lines: Sequence[str]) -> list[str]:
    """The lines that the library needs. Raises UnsupportedOffer when even these cost too much."""
    must_be_affordable(lines)
    kept = [line for section in _sections(lines) for line in _needed(section)]
    _check(work(kept))
    return kept


def must_be_affordable(lines: Sequence[str]) -> None:
    """For lines that the library does not see. Raises UnsupportedOffer."""
    _check(len(lines) * sum(line.startswith("m=") for line in lines))


def work(lines: Sequence[str]) -> int:
    """Steps that the library takes: lines by sections, and in each section by formats and
    sources."""
    sections = list(_sections(lines))
    steps = len(lines) * sum(section[:1] != [] and section[0][:2] == "m=" for section in sections)
    for section in sections:
        formats = sum(line.startswith("a=rtpmap:") for line in section)
        sources = {m[1] for line in section if (m := _SOURCE.match(line))}
        steps += len(section) * (formats + len(sources))
    return steps


def _sections(lines: Sequence[str]) -> Iterator[list[str]]:
    """What stands before the first m-line, which may be nothing, and the media sections."""
    section: list[str] = []
    for line in lines:
        if line.startswith("m="):
            yield section
            section = []
        section.append(line)
    yield section


def _needed(section: list[str]) -> Iterator[str]:
    """Without formats and feedback that nobody negotiates, and without what is said again."""
    kind = section[0][2:].split(" ", 1)[0] if section else ""
    names = _NEGOTIATED.get(kind)
    if names is None:
        yield from section
        return
    known = {
        mapped[1]
        for line in section
        if (mapped := _MAPPED.match(line)) and mapped[2].upper() in names and int(mapped[1]) < 128
    }
    said: set[str] = set()
    for line in section:
        about = _ABOUT_FORMAT.match(line)
        if about is not None and about[1] not in known:
            continue
        if line.startswith("a=rtcp-fb:") and line.partition(" ")[2].strip() not in _FEEDBACK:
            continue
        if line.startswith(("a=rtpmap:", "a=fmtp:", "a=rtcp-fb:")):
            once = line.split(" ", 1)[0] if line.startswith("a=rtpmap:") else line
            if once in said:
                continue
            said.add(once)
        yield line


def _check(steps: int) -> None:
    if steps > MAX_WORK:
        raise UnsupportedOffer(
            "reading this SDP would take too long; leave out formats and feedback that are not "
            "needed",
            found=steps,
            expected=f"at most {MAX_WORK} (lines by sections, formats and sources)",
        )
