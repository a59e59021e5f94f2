"""Which step failed, on which file, and why: in plain words, never a library's."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from streamlift.errors import MediaError

__all__ = ["TAKEN", "Notes", "shown", "step", "why"]

TAKEN = "a video, an image, an animation, or a numbered sequence such as in/%04d.png"
"""What can be upscaled."""

_REASONS = {
    errno.ENOENT: "no such file or folder",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EISDIR: "it is a folder",
    errno.EEXIST: "a file is where a folder should be",
    errno.ENOTDIR: "a part of the path is no folder",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "the file grew larger than the disk allows",
    errno.EROFS: "the disk is read-only",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EIO: "the disk or device failed",
    errno.EMFILE: "too many files are open",
    errno.EINVAL: "the file does not hold what its form demands",
    errno.ENOMEM: "there is not enough memory",
}


class Notes:
    """What a run has to say besides its result: one warning a kind, counted where it repeats."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._counts: dict[str, int] = {}

    def say(self, text: str) -> None:
        """A warning, said once."""
        if text not in self._texts:
            self._texts.append(text)

    def count(self, what: str) -> None:
        """One more of a kind; `what` is said after the number."""
        self._counts[what] = self._counts.get(what, 0) + 1

    @property
    def lines(self) -> tuple[str, ...]:
        return (*self._texts, *(f"{n} {what}" for what, n in self._counts.items()))


@contextmanager
def step(doing: str, path: Path, expected: str = "") -> Iterator[None]:
    """Turns what a library or the system raises into "`doing` PATH: reason" (MediaError), with what
    was expected where it is said."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        also = f"; expected {expected}" if expected else ""
        text = f"{doing} {shown(path)}: {why(error)}{also}"
        raise MediaError(text, found=str(path), expected=expected or None) from error


def why(error: Exception) -> str:
    """The reason in plain words."""
    code = getattr(error, "errno", None)
    if isinstance(error, av.InvalidDataError):
        return "the data is damaged, cut off, or of no known form"
    if isinstance(error, av.EOFError):
        return "it ends too early"
    if isinstance(error, av.ExternalError):
        return "the codec refused it"
    if isinstance(code, int) and code in _REASONS:
        return _REASONS[code]
    if isinstance(error, av.FFmpegError):
        return "the codec or the container refused it"
    return "the system refused it"


def shown(path: Path) -> str:
    """A path for a message of one line: control characters are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(path))
