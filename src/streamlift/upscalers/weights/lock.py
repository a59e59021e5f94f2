"""One process at a time fetches a file; the others wait and find it there."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["only_one"]

# Windows has none: there, two processes that fetch one file at once are not kept apart.
fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None

logger = logging.getLogger(__name__)

_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold `path`.lock, waiting while another process holds it; it is gone afterwards.

    A process that dies lets go of it. Raises OSError when the folder cannot be written.
    """
    name = path.with_name(path.name + ".lock")
    if fcntl is None:
        yield
        return
    while True:
        file = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(file, path)
            # Whoever held it has removed the name: this is then a lock that nobody else sees.
            if _is_still(name, file):
                break
        except BaseException:
            os.close(file)
            raise
        os.close(file)
    try:
        yield
    finally:
        name.unlink(missing_ok=True)
        os.close(file)


def _take(file: int, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.info("another process fetches %s: waiting for it", path.name)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
        logger.warning("%s: this disk knows no locks; do not fetch it twice at once", path.parent)


def _is_still(name: Path, file: int) -> bool:
    try:
        there, held = name.stat(), os.fstat(file)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
