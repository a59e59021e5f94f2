"""Golden data of the public reference, see tests/data/flashvsr/README.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

DATA = Path(__file__).parents[2] / "data" / "flashvsr"


@dataclass(frozen=True)
class Golden:
    """One file: tensors (float16 widened to float32, which is exact) and its metadata."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def weights(self, prefix: str = "weights.") -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    """golden("ops") reads ops.safetensors once."""
    cache: dict[str, Golden] = {}

    def load(name: str) -> Golden:
        if name not in cache:
            cache[name] = _read(DATA / f"{name}.safetensors")
        return cache[name]

    return load


@pytest.fixture(scope="session")
def manifest() -> Callable[[str], dict[str, tuple[int, ...]]]:
    """manifest("dit"): name to shape of the published file."""

    def load(name: str) -> dict[str, tuple[int, ...]]:
        tensors = json.loads((DATA / f"manifest-{name}.json").read_text())["tensors"]
        return {key: tuple(shape) for key, shape in tensors.items()}

    return load


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _read(path: Path) -> Golden:
    with safe_open(path, framework="pt") as file:
        meta = {key: _parse(value) for key, value in (file.metadata() or {}).items()}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    wide = {k: t.float() if t.dtype is torch.float16 else t for k, t in tensors.items()}
    return Golden(wide, meta)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
