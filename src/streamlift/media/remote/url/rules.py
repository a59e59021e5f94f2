"""Which addresses a URL pull may open, and what of them may be shown. Pure, but for looking at
files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from streamlift.errors import ConfigError
from streamlift.media.remote.url_safety import HostRules, Target

__all__ = [
    "NETWORK",
    "Place",
    "UrlRules",
    "hidden",
    "open_file",
    "stream_key",
    "without_user",
]

NETWORK = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps")
SCHEMES = (*NETWORK, "udp", "file")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads. `url` is without user and password, which are `user`, as written.

    One of `target` (a server), `listen` (an address of this machine) and `path` (a file) is there.
    """

    url: str
    scheme: str
    user: str | None = None
    target: Target | None = None
    listen: tuple[str, int] | None = None
    path: Path | None = None

    @property
    def paced(self) -> bool:
        """Whether it comes faster than it is to be shown: files, and playlists of them."""
        return self.scheme in ("http", "https", "file")


class UrlRules:
    """What the operator allows: hosts, addresses to listen on, directories."""

    def __init__(
        self, hosts: Sequence[str], listen: Sequence[str], directories: Sequence[str]
    ) -> None:
        """Raises ConfigError for a host that cannot be used."""
        self.hosts = HostRules(hosts)
        self._listen = tuple(listen)
        self._directories = tuple(directories)

    def check(self, url: str) -> Place:
        """Say where it leads. Raises ConfigError, without what is secret, when it must not be
        opened. Names are not resolved here."""
        try:
            parts = urlsplit(url)
            scheme = parts.scheme
        except ValueError:
            scheme = ""
        if scheme not in SCHEMES:
            raise ConfigError(
                f"found {scheme}:// and expected one of {', '.join(SCHEMES)}"
                if scheme
                else f"this is no URL; expected one that begins with {', '.join(SCHEMES)}",
                found=scheme,
                expected=list(SCHEMES),
            )
        if scheme == "file":
            return Place(url, scheme, path=self.file(_path_of(parts)))
        if scheme == "udp":
            return Place(url, scheme, listen=self._address(parts))
        plain = without_user(url)
        target = self.hosts.check(plain, NETWORK)
        user = parts.netloc.rpartition("@")[0] or None
        return Place(plain, scheme, user=user, target=target)

    def file(self, path: Path) -> Path:
        """The path with all links followed, if that is a file below a directory that is allowed."""
        if not self._directories:
            raise ConfigError(
                "files are not played; the operator can list directories in sources.directories",
                expected="a directory in sources.directories",
            )
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(os.path.realpath(d)) for d in self._directories):
            raise ConfigError(
                f"{path} is not below a directory of sources.directories",
                found=str(path),
                expected=list(self._directories),
            )
        try:
            regular = stat.S_ISREG(real.stat().st_mode)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}", found=str(path)) from error
        if not regular:
            raise ConfigError(f"{path} is no file", found=str(path), expected="a video file")
        return real

    def _address(self, parts: SplitResult) -> tuple[str, int]:
        address = parts.netloc.removeprefix("@")
        if address not in self._listen:
            raise ConfigError(
                f"udp://{address.rpartition('@')[2]} is not among the addresses that this service "
                "may listen on; its operator can list it in sources.udp",
                found=address.rpartition("@")[2],
                expected=list(self._listen) or "an address in sources.udp",
            )
        host, _, port = address.rpartition(":")
        return host.strip("[]"), int(port)


def open_file(rules: UrlRules, path: Path) -> int:
    """A descriptor of a file that is allowed now: what was checked is what is opened.

    Raises ConfigError, or OSError.
    """
    real = rules.file(path)
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(real, flags | getattr(os, "O_BINARY", 0))
    try:
        # A link that was put in the way between the two looks leads elsewhere now.
        if not os.path.samestat(os.fstat(descriptor), os.stat(rules.file(path))):
            raise ConfigError(f"{path} has changed while it was opened", found=str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def without_user(url: str) -> str:
    """The URL without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def hidden(url: str) -> str:
    """What of a URL may be shown: no user, no password, no query, no fragment, and of RTMP not the
    last part of the path, which is the key of the stream."""
    parts = urlsplit(url)
    path = parts.path
    if stream_key(url):
        path = path.rpartition("/")[0] + "/..."
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))


def stream_key(url: str) -> str:
    """The key in an RTMP address; empty where there is none."""
    parts = urlsplit(url)
    rtmp = parts.scheme in ("rtmp", "rtmps") and parts.path.count("/") > 1
    return parts.path.rpartition("/")[2] if rtmp else ""


def _path_of(parts: SplitResult) -> Path:
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or "\0" in path:
        raise ConfigError(
            "found a file URL with a host, a query or a zero byte; expected file:///DIRECTORY/FILE",
            expected="file:///DIRECTORY/FILE",
        )
    if not os.path.isabs(path):
        raise ConfigError(
            f"found the relative path {path!r}; expected file:///DIRECTORY/FILE",
            found=path,
            expected="file:///DIRECTORY/FILE",
        )
    return Path(path)
