"""Fetching one checkpoint by HTTP: resumed where it stopped, never more than it should be."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from streamlift import __version__
from streamlift.errors import WeightsError
from streamlift.upscalers.weights.table import Checkpoint, find_checkpoints

__all__ = ["BLOCK", "Progress", "checkpoints_asked_for", "download", "mend"]

BLOCK = 1 << 20
"""Bytes that are read at once."""

Progress = Callable[[Checkpoint, int, int | None], None]
"""Called with (checkpoint, bytes done, bytes in all or None); may raise to stop."""


def download(
    checkpoint: Checkpoint,
    url: str,
    part: Path,
    *,
    timeout_s: float,
    largest_bytes: int,
    progress: Progress | None,
) -> None:
    """Complete `part`. What came before a broken connection stays for the next try.

    A file whose size is not pinned may have `largest_bytes`. Raises WeightsError, OSError.
    """
    have = part.stat().st_size if part.is_file() else 0
    if checkpoint.size is not None and have >= checkpoint.size:
        if have == checkpoint.size:
            return
        part.unlink()
        have = 0
    headers = {"User-Agent": f"streamlift/{__version__}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  the store checks
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            start = _start_of(response, have)
            if start is None:
                part.unlink()
                raise _unreachable(checkpoint, url, "the server cannot resume; begin anew")
            total = _total_of(response, start)
            _check_room(checkpoint, part.parent, total, start, largest_bytes)
            with part.open("r+b" if start else "wb") as target:
                target.truncate(start)
                target.seek(start)
                limit = checkpoint.size or total or largest_bytes
                done = _copy(response, target, checkpoint, start, limit, total, progress)
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
        raise _unreachable(checkpoint, url, f"nothing for {timeout_s} s") from error
    if total is not None and done < total:
        raise _unreachable(checkpoint, url, f"cut off after {done} of {total} bytes")


def mend(checkpoint: Checkpoint) -> str:
    """The command that fetches a checkpoint."""
    return f"`streamlift weights pull {checkpoint.name}`"


def checkpoints_asked_for(
    reason: str, upscaler: str, table: Iterable[Checkpoint]
) -> tuple[Checkpoint, ...]:
    """The checkpoints that an error asks for by its command, as `mend` and the loaders write it.

    If one of them is what `upscaler` loads with its default settings: all that it loads then.
    Empty when the reason names no command, or nothing of the table.
    """
    table = tuple(table)
    found = re.search(r"`streamlift weights pull ([^\s`]+)", reason)
    if found is None:
        return ()
    try:
        named = find_checkpoints([found[1]], table)
    except WeightsError:
        return ()
    usual = tuple(checkpoint for checkpoint in table if upscaler in checkpoint.upscalers)
    return usual if set(named) & set(usual) else named


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


def _check_room(
    checkpoint: Checkpoint, folder: Path, total: int | None, start: int, largest_bytes: int
) -> None:
    if checkpoint.size is not None and total not in (None, checkpoint.size):
        raise WeightsError(
            f"the server's {checkpoint.name} has another size; try another mirror",
            found=f"{total} bytes",
            expected=f"{checkpoint.size} bytes",
        )
    if checkpoint.size is None and max(total or 0, start) > largest_bytes:
        raise WeightsError(
            f"the server's {checkpoint.name} is larger than any checkpoint; try another mirror",
            found=f"{max(total or 0, start)} bytes",
            expected=f"at most {largest_bytes} bytes",
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
    limit: int,
    total: int | None,
    progress: Progress | None,
) -> int:
    while block := response.read(BLOCK):
        done += len(block)
        if done > limit:  # a server that never stops must not fill the disk
            raise http.client.HTTPException(f"more than the {limit} bytes of the file")
        target.write(block)
        if progress is not None:
            progress(checkpoint, done, checkpoint.size or total)
    target.flush()
    os.fsync(target.fileno())
    return done


def _unreachable(checkpoint: Checkpoint, url: str, reason: str) -> WeightsError:
    return WeightsError(
        f"cannot fetch {checkpoint.name} from {url}: {reason}; {mend(checkpoint)} "
        "goes on where it stopped, STREAMLIFT_WEIGHTS_MIRROR names another server",
        found=reason,
        expected=url,
    )
