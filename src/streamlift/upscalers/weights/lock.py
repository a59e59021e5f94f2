"""One process at a time fetches a file; the others wait and find it there."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["only_one"]

# Windows has none: there, two processes that fetch one file at once are not kept apart.
fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None

logger = logging.getLogger(__name__)

_AGAIN_S = 0.5
_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def only_one(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold `path`.lock, waiting while another process holds it; it is gone afterwards.

    A process that dies lets go of it. `waiting` is called twice a second meanwhile, and may raise.
    Raises OSError when the folder cannot be written.
    """
    name = path.with_name(path.name + ".lock")
    if fcntl is None:
        yield
        return
    while True:
        file = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(file, path, waiting)
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


def _take(file: int, path: Path, waiting: Callable[[], None]) -> None:
    told = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                logger.info("another process fetches %s: waiting for it", path.name)
            told = True
            waiting()
            time.sleep(_AGAIN_S)
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
            folder = path.parent
            logger.warning("%s: this disk knows no locks; do not fetch it twice at once", folder)
            return
        else:
            return


def _is_still(name: Path, file: int) -> bool:
    try:
        there, held = name.stat(), os.fstat(file)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
