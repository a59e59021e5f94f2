"""The benchmark script stays alive: the tiny network runs on a CPU."""

from __future__ import annotations

import torch
from scripts.bench_swiftvr import run, table


def test_every_variant_of_the_tiny_network_runs_on_a_cpu_and_is_near_float32() -> None:
    rows = run(torch.device("cpu"), compiled=False)
    assert [row.variant for row in rows] == ["eager", "graph", "fp8"]
    for row in rows:
        assert row.fps > 0
        assert row.tflops > 0
        assert set(row.stages_ms) == {"encoder", "dit", "decoder"}
        assert 0 < row.relative_error < 0.1
    assert len(table(rows).splitlines()) == 2 + len(rows)
