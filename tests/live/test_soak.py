"""Two minutes of a chunked model with look-ahead and real peers: no frame is unaccounted for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.staged import OVERLOAD

pytestmark = [pytest.mark.peer, pytest.mark.timeout(600)]

SOAK = Path(__file__).parents[2] / "scripts" / "soak.py"
MINUTES = "2"


def test_two_minutes_of_a_chunked_model_lose_repeat_and_drop_nothing(
    unused_tcp_port: int,
) -> None:
    pytest.importorskip("torch", reason="the tiny FlashVSR needs torch")
    command = [sys.executable, str(SOAK), "--minutes", MINUTES, "--port", str(unused_tcp_port)]
    # FFmpeg's muxer publishes; 128x128 is what the tiny model upscales in time on one core.
    command += ["--backend", "flashvsr-tiny-random", "--size", "128x128"]
    for _ in range(2):  # a late frame may be the machine's: one more try
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode == 0:
            return
    load = os.getloadavg()[0]
    if load > OVERLOAD * len(os.sched_getaffinity(0)):
        pytest.xfail(f"frames were late twice at load {load:.1f}")  # says nothing of the service
    pytest.fail(run.stdout[-3000:] + run.stderr[-2000:])
