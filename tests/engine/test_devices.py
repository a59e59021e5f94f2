"""Choosing a device by name or pattern."""

from __future__ import annotations

import pytest

from streamlift.engine import Accelerator, accelerators, resolve_device
from streamlift.engine.devices import free_memory
from streamlift.errors import ConfigError, NotReady

PRESENT = (
    Accelerator("cuda:0", "NVIDIA GeForce RTX 5090", 32 << 30),
    Accelerator("cuda:1", "NVIDIA H100 80GB HBM3", 80 << 30),
)


@pytest.mark.parametrize(
    ("wanted", "device"),
    [
        ("cpu", "cpu"),
        ("cuda", "cuda:0"),
        ("cuda:1", "cuda:1"),
        ("H100|H200", "cuda:1"),
        ("h100", "cuda:1"),
        ("RTX 5090", "cuda:0"),
        ("NVIDIA", "cuda:0"),
    ],
)
def test_names_and_patterns_find_their_device(wanted: str, device: str) -> None:
    assert resolve_device(wanted, PRESENT) == device


@pytest.mark.parametrize("wanted", ["cuda:2", "A100", "cuda:10"])
def test_a_device_that_is_not_here_is_named_with_those_that_are(wanted: str) -> None:
    with pytest.raises(NotReady, match=f"{wanted}.*RTX 5090.*H100"):
        resolve_device(wanted, PRESENT)


@pytest.mark.parametrize("wanted", ["cuda", "cuda:0", "H100"])
def test_without_a_gpu_only_the_cpu_is_here(wanted: str) -> None:
    with pytest.raises(NotReady, match="cpu only"):
        resolve_device(wanted, ())
    assert resolve_device("cpu", ()) == "cpu"


def test_a_pattern_that_is_none_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"\[H100"):
        resolve_device("[H100", PRESENT)


def test_looking_for_accelerators_never_fails() -> None:
    assert all(a.device.startswith("cuda:") for a in accelerators())


def test_memory_that_torch_keeps_for_later_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = pytest.importorskip("torch", reason="the CUDA side needs torch").cuda
    for name, value in (
        ("mem_get_info", (3_000, 80_000)),
        ("memory_reserved", 10_000),
        ("memory_allocated", 4_000),
    ):
        monkeypatch.setattr(cuda, name, lambda device, value=value: value)
    assert free_memory("cuda:0") == 9_000
    assert free_memory("cpu") is None
