"""Stand-in weights by recipe, and the reference outputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")

DATA = Path(__file__).parents[2] / "data" / "basicvsr"


@pytest.fixture(scope="session")
def arrays() -> Callable[[str], dict[str, Any]]:
    """A fixture file's arrays as tensors."""

    def read(file: str) -> dict[str, Any]:
        with np.load(DATA / file) as found:
            return {name: torch.from_numpy(found[name]) for name in found}

    return read


@pytest.fixture(scope="session")
def manifest() -> Callable[[str], dict[str, Any]]:
    def read(name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
        return loaded

    return read


@pytest.fixture(scope="session")
def weights(manifest: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    """The stand-in weights of a net; checks the recipe's digest."""

    def make(name: str) -> dict[str, Any]:
        made = {entry["name"]: _made_up(entry) for entry in manifest(name)["entries"]}
        digest = hashlib.sha256()
        for key in sorted(made):
            digest.update(key.encode() + made[key].astype("<f4").tobytes())
        assert digest.hexdigest() == manifest(name)["recipe_sha256"]
        return {key: torch.from_numpy(array) for key, array in made.items()}

    return make


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Equal pictures whatever the machine's core count."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _made_up(entry: dict[str, Any]) -> npt.NDArray[np.float32]:
    shape = tuple(entry["shape"])
    if "values" in entry:
        return np.array(entry["values"], dtype=np.float32).reshape(shape)
    u = np.random.Generator(np.random.PCG64(entry["seed"])).random(int(np.prod(shape)))
    values: npt.NDArray[np.float64] = entry["offset"] + entry["amp"] * (2 * u - 1)
    return values.astype(np.float32).reshape(shape)
