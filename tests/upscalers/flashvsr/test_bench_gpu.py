"""The benchmark script stays alive: its smallest size runs on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "bench_gpu.py"


@pytest.mark.long
def test_the_smallest_size_runs_on_a_cpu_and_is_correct(tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    run = subprocess.run(
        [sys.executable, str(SCRIPT), "--device", "cpu", "--json", str(target)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert run.returncode == 0, run.stderr
    assert "NOT WITHIN" not in run.stdout
    rows = json.loads(target.read_text())["rows"]
    assert [row["variant"] for row in rows] == ["float32 exact", "bfloat16 exact"]
    for row in rows:
        assert row["fps"] > 0
        assert set(row["stages_ms"]) == set(row["errors"]) - {"lists differ"}
