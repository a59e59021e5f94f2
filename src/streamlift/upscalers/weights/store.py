"""The weights store: which checkpoints lie where, and whether each is what it claims to be.

Nothing is downloaded unless `WeightStore.pull` is called, and nothing is loaded before its sha256
was checked. A download that differs from the pinned size or digest is refused.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from streamlift.errors import ConfigError, WeightsError
from streamlift.upscalers.weights.download import BLOCK, Progress, download, mend
from streamlift.upscalers.weights.forms import NO_CHECKPOINT, form_of
from streamlift.upscalers.weights.hub import (
    cached_file,
    hub_cache,
    hub_offline,
    hub_url,
    take_over,
    truth,
)
from streamlift.upscalers.weights.lock import only_one
from streamlift.upscalers.weights.table import CHECKPOINTS, Checkpoint, find_checkpoints

__all__ = ["FileState", "FileStatus", "WeightStore", "check_digest", "digest_of"]


class FileState(StrEnum):
    """What is known of one file without reading it."""

    MISSING = "missing"
    PARTIAL = "partial"  # a download was cut off; pulling again resumes it
    UNVERIFIED = "unverified"  # there, of the right size, not hashed since it last changed
    VERIFIED = "verified"
    DAMAGED = "damaged"  # there, but not of the pinned size


@dataclass(frozen=True, slots=True)
class FileStatus:
    """One row of `streamlift weights list`; `size` is what lies on disk, in bytes."""

    checkpoint: Checkpoint
    path: Path
    state: FileState
    size: int


@dataclass(frozen=True, slots=True)
class WeightStore:
    """A directory of checkpoints, and where to fetch those that are missing.

    mirror: base URL; files are then fetched from `<mirror>/<name>`. hub: in place of
    https://huggingface.co, and hub_cache: where its tools keep files. offline: never fetch.
    largest_bytes: what a file without a pinned size may have at most.
    """

    directory: Path
    mirror: str | None = None
    hub: str | None = None
    hub_cache: Path | None = None
    largest_bytes: int = 8 << 30
    offline: bool = False
    timeout_s: float = 30.0
    checkpoints: tuple[Checkpoint, ...] = CHECKPOINTS

    def __post_init__(self) -> None:
        for what, address in (("weights mirror", self.mirror), ("HF_ENDPOINT", self.hub)):
            if address is not None and not address.startswith(("https://", "http://")):
                raise ConfigError(
                    f"{what} {address!r} is not a web address",
                    found=address,
                    expected="https://... or http://...",
                )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> WeightStore:
        """Read STREAMLIFT_WEIGHTS_DIR, STREAMLIFT_WEIGHTS_MIRROR and STREAMLIFT_OFFLINE.

        And what Hugging Face's tools read: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE.
        Without the first: `$XDG_DATA_HOME/streamlift/weights`, by default below ~/.local/share.
        """
        given = environ.get("STREAMLIFT_WEIGHTS_DIR")
        data = environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return cls(
            directory=Path(given).expanduser() if given else Path(data, "streamlift", "weights"),
            mirror=environ.get("STREAMLIFT_WEIGHTS_MIRROR") or None,
            hub=environ.get("HF_ENDPOINT") or None,
            hub_cache=hub_cache(environ),
            offline=truth(environ.get("STREAMLIFT_OFFLINE", "")) or hub_offline(environ),
        )

    def path(self, checkpoint: Checkpoint) -> Path:
        """Where the file lies or would lie."""
        return self.directory.joinpath(*checkpoint.name.split("/"))

    def status(self, checkpoint: Checkpoint) -> FileStatus:
        """Say what is there, without hashing and without the network."""
        path = self.path(checkpoint)
        if not path.is_file():
            part = _part(path)
            if part.is_file():
                return FileStatus(checkpoint, path, FileState.PARTIAL, part.stat().st_size)
            return FileStatus(checkpoint, path, FileState.MISSING, 0)
        size = path.stat().st_size
        if checkpoint.size not in (None, size):
            return FileStatus(checkpoint, path, FileState.DAMAGED, size)
        known = _read_record(path)
        good = known is not None and checkpoint.sha256 in (None, known)
        return FileStatus(
            checkpoint, path, FileState.VERIFIED if good else FileState.UNVERIFIED, size
        )

    def statuses(self) -> tuple[FileStatus, ...]:
        """The status of every checkpoint of the table."""
        return tuple(self.status(checkpoint) for checkpoint in self.checkpoints)

    def require(self, name: str, *, allow_unpinned: bool = False) -> Path:
        """Return the path of a checkpoint ready to be loaded; hash it first if it changed.

        Raises WeightsError when it is unknown, missing, damaged, or unpinned and not allowed.
        An unpinned file that `pull` fetched with leave is compared with its digest of then.
        """
        checkpoints = find_checkpoints([name], self.checkpoints)
        if len(checkpoints) != 1:
            raise WeightsError(
                f"{name} means several checkpoints; name one",
                found=name,
                expected=[c.name for c in checkpoints],
            )
        (checkpoint,) = checkpoints
        path = self.path(checkpoint)
        if self.status(checkpoint).state is FileState.VERIFIED:
            return path
        return self.verify(checkpoint, allow_unpinned=allow_unpinned)

    def verify(
        self,
        checkpoint: Checkpoint,
        *,
        allow_unpinned: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Hash the file and compare; return its path. Raises WeightsError as `require` does."""
        path = self.path(checkpoint)
        if not path.is_file():
            raise _missing(checkpoint, path)
        size = path.stat().st_size
        if checkpoint.size not in (None, size):
            raise _damaged(checkpoint, path, f"{size} bytes", f"{checkpoint.size} bytes")
        found = _hash_file(path, checkpoint, progress)
        expected = checkpoint.sha256 or _recorded_digest(path)
        if expected is None and not allow_unpinned:
            raise _unpinned(checkpoint)
        check_digest(checkpoint, path, found, expected)
        _write_record(path, found)
        return path

    def pull(
        self,
        checkpoint: Checkpoint,
        *,
        allow_unpinned: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Fetch the file unless a good one is there; return its path.

        A download that was cut off is resumed. The file appears under its name only when it is
        complete and its sha256 is right. While another process fetches it, this one waits. Raises
        WeightsError; see `verify`.
        """
        path = self.path(checkpoint)
        if self._is_good(checkpoint, progress):
            return path
        if not checkpoint.pinned and not allow_unpinned:
            raise _unpinned(checkpoint)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Who is told of the progress may end it by raising, also while it waits for another.
            waiting = (lambda: progress(checkpoint, 0, None)) if progress else (lambda: None)
            with only_one(path, waiting):
                if not self._is_good(checkpoint, progress):
                    self._fetch(checkpoint, path, progress)
        except OSError as error:
            reason = error.strerror or str(error)
            raise WeightsError(
                f"cannot write {checkpoint.name} in {self.directory}: {reason}; "
                "choose another directory by STREAMLIFT_WEIGHTS_DIR",
                found=reason,
                expected="a directory with room and write permission",
            ) from error
        return path

    def _fetch(self, checkpoint: Checkpoint, path: Path, progress: Progress | None) -> None:
        """Out of the hub's cache if it is there and right, else by the network."""
        part = _part(path)
        cached = cached_file(checkpoint.source, self.hub_cache)
        if cached is not None and checkpoint.size in (None, cached.stat().st_size):
            found = _hash_file(cached, checkpoint, progress)
            if checkpoint.sha256 in (None, found):
                take_over(cached, part)
                os.replace(part, path)
                _write_record(path, found)
                return
        if self.offline:
            raise WeightsError(
                f"{checkpoint.name} is not in {self.directory} and offline mode is on; unset "
                "STREAMLIFT_OFFLINE and HF_HUB_OFFLINE, or copy the file there by hand",
                found="offline",
                expected=str(path),
            )
        url = self._url(checkpoint)
        download(
            checkpoint,
            url,
            part,
            timeout_s=self.timeout_s,
            largest_bytes=self.largest_bytes,
            progress=progress,
        )
        found, form = _hash_file(part, checkpoint, None), form_of(part)
        wrong = checkpoint.sha256 not in (None, found)
        if wrong or form in NO_CHECKPOINT:
            part.unlink()  # nothing to resume from
            what = form if form in NO_CHECKPOINT else f"sha256 {found}"
            expected = f"sha256 {checkpoint.sha256}" if wrong else "a checkpoint"
            raise WeightsError(
                f"{url} is not {checkpoint.name}: found {what}, expected {expected}; it was "
                "deleted. Try another mirror",
                found=found if wrong else str(form),
                expected=checkpoint.sha256 if wrong else "a checkpoint",
            )
        os.replace(part, path)
        _write_record(path, found)

    def _is_good(self, checkpoint: Checkpoint, progress: Progress | None) -> bool:
        """True if the file is there and right; pulling replaces a wrong one."""
        state = self.status(checkpoint).state
        if state is FileState.UNVERIFIED and checkpoint.pinned:
            found = _hash_file(self.path(checkpoint), checkpoint, progress)
            if found == checkpoint.sha256:
                _write_record(self.path(checkpoint), found)
                return True
        return state is FileState.VERIFIED

    def _url(self, checkpoint: Checkpoint) -> str:
        if self.mirror is None:
            return hub_url(checkpoint.source, self.hub)
        return f"{self.mirror.rstrip('/')}/{checkpoint.name}"


def digest_of(path: Path) -> str:
    """The sha256 of a file, read anew only if it changed since the store checked it."""
    known = _read_record(path)
    if known is not None:
        return known
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(checkpoint: Checkpoint, path: Path, found: str, expected: str | None) -> None:
    """Raises WeightsError when a file is another than the expected one, if that is known."""
    if expected not in (None, found):
        raise _damaged(checkpoint, path, f"sha256 {found}", f"sha256 {expected}")


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def _write_record(path: Path, digest: str) -> None:
    stat = path.stat()
    line = json.dumps({"sha256": digest, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns})
    try:
        _record(path).write_text(line, encoding="utf-8")
    except OSError as error:
        # A read-only directory of weights is fine: they are hashed again at the next start.
        if not isinstance(error, PermissionError) and error.errno != errno.EROFS:
            raise


def _read_record(path: Path) -> str | None:
    """The digest noted for the file as it is now; None if it changed or was never hashed."""
    noted = _load_record(path)
    stat = path.stat()
    if (noted.get("size"), noted.get("mtime_ns")) != (stat.st_size, stat.st_mtime_ns):
        return None
    return _digest_in(noted)


def _recorded_digest(path: Path) -> str | None:
    """The digest noted for the file when it was pulled, whether it changed since or not."""
    return _digest_in(_load_record(path))


def _load_record(path: Path) -> dict[str, Any]:
    try:
        noted = json.loads(_record(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # no record, or a broken one: the file is hashed again
    return noted if isinstance(noted, dict) else {}


def _digest_in(noted: Mapping[str, Any]) -> str | None:
    digest = noted.get("sha256")
    return digest if isinstance(digest, str) else None


def _hash_file(path: Path, checkpoint: Checkpoint, progress: Progress | None) -> str:
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as source:
        while block := source.read(BLOCK):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(checkpoint, done, total)
    return digest.hexdigest()


def _missing(checkpoint: Checkpoint, path: Path) -> WeightsError:
    return WeightsError(
        f"{checkpoint.name} is missing: found nothing at {path}; {mend(checkpoint)} fetches it",
        found="no such file",
        expected=str(path),
    )


def _damaged(checkpoint: Checkpoint, path: Path, found: str, expected: str) -> WeightsError:
    return WeightsError(
        f"{path} is not {checkpoint.name}: damaged, or another file: found {found}, expected "
        f"{expected}; "
        f"{mend(checkpoint)} replaces it",
        found=found,
        expected=expected,
    )


def _unpinned(checkpoint: Checkpoint) -> WeightsError:
    return WeightsError(
        f"{checkpoint.name} is unpinned: no digest of it is known, so it cannot be checked; "
        f"{mend(checkpoint)[:-1]} --allow-unpinned` trusts what the server sends",
        found="no sha256",
        expected="a pinned file, or leave to take an unpinned one",
    )
