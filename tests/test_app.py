"""What the composition root makes of a configuration."""

from __future__ import annotations

import pytest

from streamlift import app
from streamlift.config import BackendConfig, Config
from streamlift.engine import Accelerator

GPU = Accelerator("cuda:0", "NVIDIA H100", 80 << 30)


@pytest.mark.parametrize(
    ("config", "looks"),
    [
        (Config(), True),
        (Config(backends=(BackendConfig("bicubic", "bicubic"),)), False),
        (Config(backends=(BackendConfig("flashvsr", "flashvsr", device="H100"),)), True),
    ],
    ids=["nothing configured", "all on the CPU", "one on a GPU"],
)
def test_the_gpus_are_looked_at_only_for_backends_that_may_run_there(
    monkeypatch: pytest.MonkeyPatch, config: Config, looks: bool
) -> None:
    monkeypatch.setattr(app, "accelerators", lambda: (GPU,))
    assert app._accelerators_for(config) == ((GPU,) if looks else ())
