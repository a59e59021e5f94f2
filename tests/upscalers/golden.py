"""Golden data of a public reference: tensors and metadata of a file in tests/data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, float16

__all__ = ["Golden", "read_golden", "read_manifest"]

DATA = Path(__file__).parents[1] / "data"


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


@cache
def read_golden(model: str, name: str) -> Golden:
    """read_golden("flashvsr", "ops") reads ops.safetensors once."""
    with safe_open(DATA / model / f"{name}.safetensors", framework="pt") as file:
        meta = {key: _parse(value) for key, value in (file.metadata() or {}).items()}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    wide = {k: t.float() if t.dtype is float16 else t for k, t in tensors.items()}
    return Golden(wide, meta)


def read_manifest(model: str, name: str) -> dict[str, tuple[int, ...]]:
    """Name to shape of the published file."""
    tensors = json.loads((DATA / model / f"manifest-{name}.json").read_text())["tensors"]
    return {key: tuple(shape) for key, shape in tensors.items()}


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
