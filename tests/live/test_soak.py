"""Two minutes with real peers and real models: no frame is unaccounted for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.machine import Spell

pytestmark = [pytest.mark.peer, pytest.mark.timeout(600)]

SOAK = Path(__file__).parents[2] / "scripts" / "soak.py"
MINUTES = "2"


def test_two_minutes_of_a_chunked_model_lose_repeat_and_drop_nothing(
    unused_tcp_port: int,
) -> None:
    pytest.importorskip("torch", reason="the tiny FlashVSR needs torch")
    # FFmpeg's muxer publishes; 128x128 is what the tiny model upscales in time on one core.
    _soak("--backend", "flashvsr-tiny-random", "--size", "128x128", port=unused_tcp_port)


def test_two_minutes_of_the_default_at_full_size_lose_repeat_and_drop_nothing(
    unused_tcp_port: int,
) -> None:
    """512x512 at 25 fps through `compact` and the stabiliser, decoded, encoded and watched."""
    _soak("--backend", "compact", "--stabilise", "lite", port=unused_tcp_port)


def _soak(*options: str, port: int) -> None:
    command = [sys.executable, str(SOAK), "--minutes", MINUTES, "--port", str(port), *options]
    for _ in range(2):  # a late frame may be the machine's: one more try
        spell = Spell()
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode == 0:
            return
    if overload := spell.overload(others_share=0.0):
        pytest.xfail(f"frames were late twice; {overload}")  # says nothing of the service
    pytest.fail(run.stdout[-3000:] + run.stderr[-2000:])
