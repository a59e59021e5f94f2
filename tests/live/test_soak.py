"""Two minutes with real peers, real models and faults: every frame is shown or counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from scripts.children import bound

pytestmark = [pytest.mark.peer, pytest.mark.soak, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
MINUTES = "2"


@pytest.mark.parametrize("model", ["flashvsr-tiny-random", "swiftvr-tiny-random"])
def test_two_minutes_of_a_chunked_model_lose_no_frame_uncounted_and_grow_by_nothing(
    unused_tcp_port: int, model: str
) -> None:
    pytest.importorskip("torch", reason="the tiny models need torch")
    # Chunks of eight, three or four behind: 440 ms before any computing, and 1.2 s for queues.
    _soak(
        *("--backend", model, "--size", "128x128", "--delay-bound-ms", "3500"),
        port=unused_tcp_port,
    )


def test_two_minutes_of_the_default_with_faults_lose_no_frame_uncounted_and_grow_by_nothing(
    unused_tcp_port: int,
) -> None:
    """512x512 at 25 fps through `compact` and the stabiliser, decoded, encoded and watched."""
    _soak(
        *("--backend", "compact", "--stabilise", "lite", "--viewers", "3", "--faults"),
        port=unused_tcp_port,
    )


def _soak(*options: str, port: int) -> None:
    command = bound(sys.executable, "-m", "scripts.soak", "--minutes", MINUTES, *options)
    run = subprocess.run(
        [*command, "--port", str(port)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    sys.stdout.write(run.stdout)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]
