"""A post-processor with small models and a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.integrations.scope.models_for_tests import chunked_or_single

from streamlift.clock import ManualClock
from streamlift.integrations.scope.models import Create
from streamlift.integrations.scope.postprocessor import Upscale

MakeUpscale = Callable[..., Upscale]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> MakeUpscale:
    """Make an Upscale from load parameters; `create` makes its models."""
    torch.set_num_threads(1)

    def make_upscale(create: Create = chunked_or_single, **params: Any) -> Upscale:
        monkeypatch.setattr(Upscale, "create", staticmethod(create))
        monkeypatch.setattr(Upscale, "clock", clock)
        return Upscale(**params)

    return make_upscale
