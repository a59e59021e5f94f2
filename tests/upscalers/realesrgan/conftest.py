"""Stand-in weights by recipe, and the reference outputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")

DATA = Path(__file__).parents[2] / "data" / "realesrgan"


@dataclass(frozen=True)
class Reference:
    """Reads the fixtures of one architecture's folder."""

    folder: Path

    def manifest(self, net: str) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.folder / f"{net}.json").read_text())
        return manifest

    def weights(self, net: str) -> dict[str, Any]:
        """The stand-in weights of a net as torch tensors; checks the recipe's digest."""
        manifest = self.manifest(net)
        arrays = {entry["name"]: _made_up(entry) for entry in manifest["entries"]}
        digest = hashlib.sha256()
        for name in sorted(arrays):
            digest.update(name.encode() + arrays[name].astype("<f4").tobytes())
        assert digest.hexdigest() == manifest["recipe_sha256"]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def arrays(self, file: str) -> Mapping[str, npt.NDArray[Any]]:
        with np.load(self.folder / file) as arrays:
            return dict(arrays)

    def cases(self) -> list[dict[str, Any]]:
        cases: list[dict[str, Any]] = json.loads((self.folder / "cases.json").read_text())["cases"]
        return cases


@pytest.fixture(scope="session")
def rrdbnet() -> Reference:
    return Reference(DATA / "rrdbnet")


@pytest.fixture(scope="session")
def srvgg() -> Reference:
    return Reference(DATA / "srvgg")


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Reference]:
    return lambda folder: Reference(DATA / folder)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Equal pictures whatever the machine's core count."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _made_up(entry: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    shape = tuple(entry["shape"])
    u = np.random.Generator(np.random.PCG64(entry["seed"])).random(int(np.prod(shape)))
    values: npt.NDArray[np.float64] = entry["offset"] + entry["amp"] * (2 * u - 1)
    return values.astype(np.float32).reshape(shape)
