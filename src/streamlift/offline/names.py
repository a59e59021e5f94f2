"""Paths as people have them: any legal name is a name, and `%04d` counts pictures."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from streamlift.errors import MediaError
from streamlift.offline.steps import shown, step

__all__ = ["Numbered", "kind_of", "url"]

_NUMBER = re.compile(r"(?<!%)%(0?)(\d?)d")


def url(path: Path) -> str:
    """A path as FFmpeg takes it: never as a protocol, an option or a pattern."""
    return f"file:{path}"


@dataclass(frozen=True, slots=True)
class Numbered:
    """A numbered sequence such as `in/%04d.png`."""

    pattern: Path

    @classmethod
    def read(cls, path: Path) -> Numbered | None:
        """None for an ordinary name: one that exists, or that has no single number in it."""
        if len(_NUMBER.findall(path.name)) != 1 or os.path.isfile(path):
            return None
        return cls(path)

    def path(self, number: int) -> Path:
        """The picture of that number."""
        name = self.pattern.name
        found = _NUMBER.search(name)
        assert found is not None
        digits = str(number).rjust(int(found[2] or 0), "0" if found[1] else " ")
        return self.pattern.with_name(name[: found.start()] + digits + name[found.end() :])

    def numbers(self) -> list[int]:
        """The numbers that are there, in order. Raises MediaError when there are none."""
        name = self.pattern.name
        found = _NUMBER.search(name)
        assert found is not None
        form = re.compile(
            re.escape(name[: found.start()]) + r"\s*(\d+)" + re.escape(name[found.end() :]), re.S
        )
        with step("reading", self.pattern):
            names = os.listdir(self.pattern.parent)
        numbers = {int(m[1]) for n in names if (m := form.fullmatch(n))}
        there = sorted(n for n in numbers if self.path(n).is_file())
        if not there:
            raise MediaError(
                f"reading {shown(self.pattern)}: no picture of this name is there, "
                f"such as {shown(self.path(1))}",
                found=str(self.pattern),
            )
        return there


def kind_of(head: bytes) -> str:
    """What the first bytes say: png, apng, jpeg, webp, gif, bmp, tiff, avif, heic, ..., or ""."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "apng" if b"acTL" in head[:256] else "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        animated = head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 2
        return "webp animation" if animated else "webp"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "bmp"
    if head[:4] in (b"II*\0", b"MM\0*"):
        return "tiff"
    if head[4:12] == b"ftypavis":
        return "avif animation"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"mif1", b"heic", b"heix", b"heim"):
        return "avif" if b"avif" in head[8:64] else "heic"
    if head[4:12] == b"jP  \r\n\x87\n":
        return "jpeg 2000"
    return ""
