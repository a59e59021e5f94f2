"""What the composition root makes of a configuration."""

from __future__ import annotations

import pytest

from streamlift import app
from streamlift.clock import ManualClock
from streamlift.config import BackendConfig, Config
from streamlift.engine import Accelerator
from streamlift.metrics import Metrics
from streamlift.routing import decision_matrix

GPU = Accelerator("cuda:0", "NVIDIA H100", 80 << 30)


@pytest.mark.parametrize(
    ("config", "looks"),
    [
        (Config(), True),
        (Config(backends=(BackendConfig("bicubic", "bicubic"),)), False),
        (Config(backends=(BackendConfig("flashvsr", "flashvsr", device="H100"),)), False),
        (
            Config(backends=(BackendConfig("flashvsr", "flashvsr", device="H100", link="inproc"),)),
            True,
        ),
    ],
    ids=["nothing configured", "all on the CPU", "one in its own process", "one on a GPU"],
)
def test_the_gpus_are_looked_at_only_for_backends_that_may_run_there(
    monkeypatch: pytest.MonkeyPatch, config: Config, looks: bool
) -> None:
    monkeypatch.setattr(app, "accelerators", lambda: (GPU,))
    monkeypatch.setattr(app, "accelerators_apart", lambda: (GPU,))
    assert app._accelerators_for(config) == ((GPU,) if looks else ())


def test_the_decision_matrix_lists_the_backends_of_a_service_without_a_configuration() -> None:
    order = {row.device: row.order for row in decision_matrix()}
    for present, device in (((), "CPU"), ((GPU,), "NVIDIA GPU")):
        built = app._build_backends(Config(), ManualClock(), present, Metrics())
        assert {b.info().upscaler for b in built.values()} == set(order[device])
