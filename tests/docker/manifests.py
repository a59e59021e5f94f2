"""Where the files of docker/ are, and how each is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

__all__ = ["DATA", "DOCKER", "ROOT", "documents", "read_json", "read_yaml"]

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DATA = ROOT / "tests" / "data"


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def documents(path: Path) -> list[Any]:
    """All documents of a file of Kubernetes."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
