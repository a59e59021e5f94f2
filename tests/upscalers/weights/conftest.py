"""The server of checkpoints as a fixture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.upscalers.weights.shelf import Shelf, serving_shelf


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with serving_shelf() as shelf:
        yield shelf
