"""The benchmark script stays alive: its smallest size runs on a CPU."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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


@pytest.mark.long
@pytest.mark.parametrize("part", ["truth", "kernels", "proof"])
def test_each_of_the_three_runs_goes_through_on_a_cpu(part: str, tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--json", str(target)]
    run = subprocess.run(
        [*command, "--plan", "minutes", "--part", part],
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert run.returncode == 0, run.stderr
    rows = json.loads(target.read_text())
    assert len(rows) >= 3
    for row in rows:
        assert "error" not in row
        assert "left_out" not in row
        assert {"step", "card", "sparse_ratio", "took_s"} <= set(row)
        assert row.get("relative_error", 0.0) < 1e-5
        errors = row.get("errors", {})
        assert all(error < 1e-4 for name, error in errors.items()), errors
    if part == "truth":
        baseline = next(row for row in rows if "public code" in row["step"])
        assert set(baseline["errors"]) == {"enlarge", "projector", "dit", "decoder", "colour"}


def test_a_run_writes_as_it_goes_survives_a_failure_and_ends_in_time(tmp_path: Path) -> None:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        minutes: Any = importlib.import_module("bench_minutes")
    finally:
        sys.path.remove(str(SCRIPT.parent))
    target, now = tmp_path / "run.json", [0.0]

    def step(seconds: float) -> dict[str, Any]:
        written = json.loads(target.read_text()) if target.exists() else []
        now[0] += seconds
        if seconds == 5:
            raise RuntimeError("no such kernel")
        return {"before": len(written)}

    steps = [minutes.Step(f"{n}", lambda n=n: step(n), needs_s=2.0) for n in (2, 5, 1, 1, 0)]
    minutes.run_steps(steps, target, common={"card": "none"}, limit_s=10, now_s=lambda: now[0])
    rows = json.loads(target.read_text())
    assert [row.get("before") for row in rows] == [0, None, 2, 3, None]
    assert "no such kernel" in rows[1]["error"]
    assert rows[4]["left_out"] == "1 s left, may take 2"
    assert all(row["card"] == "none" for row in rows)
