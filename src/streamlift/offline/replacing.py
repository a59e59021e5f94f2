"""A result appears under its name whole or not at all, whatever ends the work."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streamlift.errors import ConfigError, MediaError
from streamlift.offline.names import Numbered
from streamlift.offline.steps import shown, step

__all__ = ["check_target", "replacing"]


def check_target(source: Path, target: Path, *, clobber: bool) -> None:
    """Refuse a target that is the source, is there and must stay, or cannot be replaced.

    Raises ConfigError (the command line is wrong) or MediaError (the place cannot be written).
    """
    sources, targets = Numbered.read(source), Numbered.read(target)
    if _same(source, target) or (sources and targets and _same_name(source, target)):
        raise ConfigError(
            f"{shown(target)} is the source itself; give the result another name", found=str(target)
        )
    there = [target] if os.path.exists(target) else []
    if targets is not None:
        folder = target.parent
        there = [targets.path(n) for n in targets.numbers()] if _any_of(targets, folder) else []
        if sources is None and any(_same(source, path) for path in there):
            raise ConfigError(
                f"{shown(target)} would replace the source {shown(source)}", found=str(target)
            )
    if there and not clobber:
        raise ConfigError(
            f"{shown(there[0])} is there already, and --no-clobber keeps it", found=str(there[0])
        )
    for path in there:
        if not os.path.isfile(path):
            raise MediaError(
                f"writing {shown(path)}: it is no ordinary file and cannot be replaced",
                found=str(path),
            )


@contextmanager
def replacing(target: Path, *, clobber: bool = True) -> Iterator[Path]:
    """A path beside `target` that becomes it at the end, or is removed on failure.

    Its name is short, so that a target's name may be as long as the disk allows. Raises
    MediaError when the folder cannot be written, or when the target came up meanwhile.
    """
    part = target.with_name(f".streamlift-{secrets.token_hex(6)}.part")
    try:
        with step("writing", target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                target.lstat()  # says now if the name is too long
            part.touch()
        yield part
        if not clobber and os.path.exists(target):
            raise MediaError(
                f"writing {shown(target)}: it came up meanwhile, and --no-clobber keeps it",
                found=str(target),
            )
        with step("writing", target):
            os.replace(part, target)
    finally:
        with suppress(OSError):  # not there, or never could be
            part.unlink()


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False  # one of them is not there


def _same_name(one: Path, other: Path) -> bool:
    return one.name == other.name and _same(one.parent, other.parent)


def _any_of(targets: Numbered, folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        targets.numbers()
    except MediaError:
        return False
    return True
