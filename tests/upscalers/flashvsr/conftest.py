"""Golden data of the public reference, see tests/data/flashvsr/README.md."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from tests.upscalers.golden import Golden, read_golden, read_manifest


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    """golden("ops") reads ops.safetensors once."""
    return partial(read_golden, "flashvsr")


@pytest.fixture(scope="session")
def manifest() -> Callable[[str], dict[str, tuple[int, ...]]]:
    """manifest("dit"): name to shape of the published file."""
    return partial(read_manifest, "flashvsr")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
