"""Hugging Face as its own tools know it: another endpoint, files already in its cache, offline."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["cached_file", "hub_cache", "hub_offline", "hub_url", "take_over", "truth"]

_HUB = "https://huggingface.co"
_SOURCE = re.compile(r"https://huggingface\.co/([\w.-]+)/([\w.-]+)/resolve/([\w.-]+)/(.+)")


def hub_url(source: str, endpoint: str | None) -> str:
    """`source` at HF_ENDPOINT, if it is one of the hub's."""
    if endpoint is None or not source.startswith(_HUB + "/"):
        return source
    return endpoint.rstrip("/") + source[len(_HUB) :]


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Where the hub's tools keep files: HF_HUB_CACHE, HF_HOME/hub, or below ~/.cache."""
    given = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    if given:
        return Path(given).expanduser()
    home = environ.get("HF_HOME")
    if home:
        return Path(home).expanduser() / "hub"
    cache = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "huggingface", "hub")


def hub_offline(environ: Mapping[str, str]) -> bool:
    """HF_HUB_OFFLINE."""
    return truth(environ.get("HF_HUB_OFFLINE", ""))


def truth(text: str) -> bool:
    """What an environment variable that is a switch says."""
    return text.strip().lower() not in ("", "0", "false", "no", "off")


def cached_file(source: str, cache: Path | None) -> Path | None:
    """The file of that address in the hub's cache, if it is there."""
    found = _SOURCE.fullmatch(source)
    if cache is None or found is None:
        return None
    owner, repository, revision, file = found.groups()
    folder = cache / f"models--{owner}--{repository}"
    try:
        commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = revision  # a commit names itself
    path = folder / "snapshots" / commit / file
    return path.resolve() if re.fullmatch(r"[\w.-]+", commit) and path.is_file() else None


def take_over(file: Path, part: Path) -> None:
    """Give `file` the second name `part`, or copy it to another disk. Raises OSError."""
    part.unlink(missing_ok=True)
    try:
        os.link(file, part)
    except OSError:
        shutil.copyfile(file, part)
