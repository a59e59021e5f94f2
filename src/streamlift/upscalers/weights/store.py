"""The weights store: which checkpoints exist, where they lie, fetching them, loading them safely.

Nothing is downloaded unless `WeightStore.pull` is called, nothing is loaded before its sha256 was
checked, and a checkpoint is data: pickles go through torch's weights-only reader, which builds
tensors and containers and refuses everything else. A download that differs from the pinned size
or digest is refused.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import pickle
import re
import shutil
import ssl
import struct
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from streamlift import __version__
from streamlift.errors import ConfigError, WeightsError
from streamlift.upscalers.weights.table import CHECKPOINTS, Checkpoint, find_checkpoints

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FileState",
    "FileStatus",
    "Progress",
    "WeightStore",
    "load_checkpoint",
    "load_state_dict",
]


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


Progress = Callable[[Checkpoint, int, int | None], None]
"""Called with (checkpoint, bytes done, bytes in all or None); may raise to stop."""


@dataclass(frozen=True, slots=True)
class WeightStore:
    """A directory of checkpoints, and where to fetch those that are missing.

    mirror: base URL; files are then fetched from `<mirror>/<name>`. offline: never fetch.
    """

    directory: Path
    mirror: str | None = None
    offline: bool = False
    timeout_s: float = 30.0
    checkpoints: tuple[Checkpoint, ...] = CHECKPOINTS

    def __post_init__(self) -> None:
        if self.mirror is not None and not self.mirror.startswith(("https://", "http://")):
            raise ConfigError(
                f"weights mirror {self.mirror!r} is not a web address",
                found=self.mirror,
                expected="https://... or http://...",
            )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> WeightStore:
        """Read STREAMLIFT_WEIGHTS_DIR, STREAMLIFT_WEIGHTS_MIRROR and STREAMLIFT_OFFLINE.

        Without the first: `$XDG_DATA_HOME/streamlift/weights`, by default below ~/.local/share.
        """
        given = environ.get("STREAMLIFT_WEIGHTS_DIR")
        data = environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return cls(
            directory=Path(given).expanduser() if given else Path(data, "streamlift", "weights"),
            mirror=environ.get("STREAMLIFT_WEIGHTS_MIRROR") or None,
            offline=environ.get("STREAMLIFT_OFFLINE", "").lower() not in ("", "0", "false", "no"),
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
        if expected not in (None, found):
            raise _damaged(checkpoint, path, f"sha256 {found}", f"sha256 {expected}")
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
        complete and its sha256 is right. Raises WeightsError; see `verify`.
        """
        path = self.path(checkpoint)
        if self._is_good(checkpoint, progress):
            return path
        if not checkpoint.pinned and not allow_unpinned:
            raise _unpinned(checkpoint)
        if self.offline:
            raise WeightsError(
                f"{checkpoint.name} is not in {self.directory} and offline mode is on; "
                "unset STREAMLIFT_OFFLINE, or copy the file there by hand",
                found="offline",
                expected=str(path),
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._download(checkpoint, _part(path), progress)
            found = _hash_file(_part(path), checkpoint, None)
            if checkpoint.sha256 not in (None, found):
                _part(path).unlink()  # nothing to resume from
                raise WeightsError(
                    f"{self._url(checkpoint)} is not {checkpoint.name}: found sha256 {found}, "
                    f"expected {checkpoint.sha256}; it was deleted. Try another mirror",
                    found=found,
                    expected=checkpoint.sha256,
                )
            os.replace(_part(path), path)
            _write_record(path, found)
        except OSError as error:
            raise WeightsError(
                f"cannot write {checkpoint.name} in {self.directory}: {error}; "
                "choose another directory by STREAMLIFT_WEIGHTS_DIR",
                found=str(error),
                expected="a directory with room and write permission",
            ) from error
        return path

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
            return checkpoint.source
        return f"{self.mirror.rstrip('/')}/{checkpoint.name}"

    def _download(self, checkpoint: Checkpoint, part: Path, progress: Progress | None) -> None:
        """Complete `part`. What came before a broken connection stays for the next try."""
        have = part.stat().st_size if part.is_file() else 0
        if checkpoint.size is not None and have >= checkpoint.size:
            if have == checkpoint.size:
                return
            part.unlink()
            have = 0
        url = self._url(checkpoint)
        request = urllib.request.Request(url, headers={"User-Agent": f"streamlift/{__version__}"})
        if have:
            request.add_header("Range", f"bytes={have}-")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                start = _start_of(response, have)
                if start is None:
                    part.unlink()
                    raise _unreachable(checkpoint, url, "the server cannot resume; begin anew")
                total = _total_of(response, start)
                _check_room(checkpoint, part.parent, total, start)
                with part.open("r+b" if start else "wb") as target:
                    target.truncate(start)
                    target.seek(start)
                    done = _copy(response, target, checkpoint, start, total, progress)
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)  # longer than the file ever was
            raise _unreachable(checkpoint, url, f"HTTP {error.code} {error.reason}") from error
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            ConnectionError,
            ssl.SSLError,
        ) as error:
            raise _unreachable(checkpoint, url, str(error)) from error
        except TimeoutError as error:
            raise _unreachable(checkpoint, url, f"nothing for {self.timeout_s} s") from error
        if total is not None and done < total:
            raise _unreachable(checkpoint, url, f"cut off after {done} of {total} bytes")


def load_checkpoint(path: Path) -> Any:
    """Read a .safetensors file, or a torch file by torch's weights-only reader, onto the CPU.

    Returns what it holds: a dict of tensors, or the tensors and containers that were pickled.
    Raises WeightsError when the file is missing, damaged, or holds anything but data; code in a
    pickle is never run.
    """
    if not path.is_file():
        raise WeightsError(
            f"no checkpoint at {path}", found="no such file", expected="a .pth or .safetensors file"
        )
    return _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)


def load_state_dict(
    path: Path, *, wrappers: tuple[str, ...] = ("params_ema", "params", "state_dict")
) -> dict[str, Tensor]:
    """Read a checkpoint and return its tensors by name, from the first wrapper key that is there.

    Raises WeightsError as `load_checkpoint` does, and when what is there is no dict of tensors.
    """
    import torch

    loaded = load_checkpoint(path)
    if isinstance(loaded, dict):
        loaded = next((loaded[key] for key in wrappers if key in loaded), loaded)
    if not isinstance(loaded, dict) or not loaded:
        raise _unreadable(path, type(loaded).__name__, "tensors by name")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise _unreadable(path, f"{name}: {type(tensor).__name__}", "tensors by name")
    return dict(loaded)


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, str(error), "a whole .safetensors file") from error


def _load_pickle(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except _BAD_PICKLE as error:
        reason = str(error).strip().splitlines()
        # A pickle that asks for a class or function that is not on torch's list lands here too.
        raise _unreadable(
            path,
            reason[0] if reason else type(error).__name__,
            "a torch file that holds only tensors and containers",
        ) from error


# What torch.load is known to let through from a truncated or forged file.
_BAD_PICKLE = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
)

_BLOCK = 1 << 20


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
        while block := source.read(_BLOCK):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(checkpoint, done, total)
    return digest.hexdigest()


def _start_of(response: http.client.HTTPResponse, have: int) -> int | None:
    """Where the body begins in the file: `have` if the server resumes there, 0 if it does not.

    None if it resumes at another byte than was asked for.
    """
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    span = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return have if span is not None and int(span[1]) == have else None


def _total_of(response: http.client.HTTPResponse, start: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _check_room(checkpoint: Checkpoint, folder: Path, total: int | None, start: int) -> None:
    if checkpoint.size is not None and total not in (None, checkpoint.size):
        raise WeightsError(
            f"the server's {checkpoint.name} has another size; try another mirror",
            found=f"{total} bytes",
            expected=f"{checkpoint.size} bytes",
        )
    needed = (checkpoint.size or total or 0) - start
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise WeightsError(
            f"no room for {checkpoint.name} in {folder}; set STREAMLIFT_WEIGHTS_DIR",
            found=f"{free} bytes free",
            expected=f"{needed} bytes free",
        )


def _copy(
    response: http.client.HTTPResponse,
    target: BinaryIO,
    checkpoint: Checkpoint,
    done: int,
    total: int | None,
    progress: Progress | None,
) -> int:
    limit = checkpoint.size or total
    while block := response.read(_BLOCK):
        done += len(block)
        if limit is not None and done > limit:  # a server that never stops must not fill the disk
            raise http.client.HTTPException(f"more than the {limit} bytes of the file")
        target.write(block)
        if progress is not None:
            progress(checkpoint, done, limit)
    target.flush()
    os.fsync(target.fileno())
    return done


def _mend(checkpoint: Checkpoint) -> str:
    return f"`streamlift weights pull {checkpoint.name}`"


def _missing(checkpoint: Checkpoint, path: Path) -> WeightsError:
    return WeightsError(
        f"{checkpoint.name} is missing: found nothing at {path}; {_mend(checkpoint)} fetches it",
        found="no such file",
        expected=str(path),
    )


def _damaged(checkpoint: Checkpoint, path: Path, found: str, expected: str) -> WeightsError:
    return WeightsError(
        f"{path} is not {checkpoint.name}: found {found}, expected {expected}; "
        f"{_mend(checkpoint)} replaces it",
        found=found,
        expected=expected,
    )


def _unpinned(checkpoint: Checkpoint) -> WeightsError:
    return WeightsError(
        f"{checkpoint.name} is unpinned: no digest of it is known, so it cannot be checked; "
        f"{_mend(checkpoint)[:-1]} --allow-unpinned` trusts what the server sends",
        found="no sha256",
        expected="a pinned file, or leave to take an unpinned one",
    )


def _unreachable(checkpoint: Checkpoint, url: str, reason: str) -> WeightsError:
    return WeightsError(
        f"cannot fetch {checkpoint.name} from {url}: {reason}; {_mend(checkpoint)} "
        "goes on where it stopped, STREAMLIFT_WEIGHTS_MIRROR names another server",
        found=reason,
        expected=url,
    )


def _unreadable(path: Path, found: str, expected: str) -> WeightsError:
    return WeightsError(
        f"{path} cannot be loaded: found {found}; expected {expected}. "
        "`streamlift weights verify` tells whether a listed file is damaged, "
        "`streamlift weights pull NAME` replaces it",
        found=found,
        expected=expected,
    )
