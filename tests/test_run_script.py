"""`scripts/run`: what it says where there is a graphics card and no model for one."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from streamlift.upscalers.weights import CHECKPOINTS

ROOT = Path(__file__).parents[1]
CARD = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a shell script")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose environment is this one, whose service only says how it was started."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "run", tmp_path / "scripts" / "run")
    (tmp_path / "scripts" / "environment.sh").write_text(
        'TESTED_EXTRAS=tests\nensure_environment() { echo "extras $1"; }\n'
    )
    program(
        tmp_path / ".venv" / "bin" / "streamlift",
        'if [ "$1" = serve ]; then echo "$@"; else '
        f'exec {sys.executable} -m streamlift.cli "$@"; fi',
    )
    return tmp_path


def program(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def run(checkout: Path, *, card: bool) -> list[str]:
    tools = checkout / "tools"
    program(tools / "nvidia-smi", f"echo '{CARD}'" if card else "exit 9")
    environment = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "STREAMLIFT_WEIGHTS_DIR": str(checkout / "weights"),
    }
    done = subprocess.run(
        [checkout / "scripts" / "run", "--port", "0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def test_with_a_card_and_no_weights_it_prints_the_one_command(checkout: Path) -> None:
    said = run(checkout, card=True)
    assert said[0] == "extras server,cluster,torch"
    assert said[1].startswith("GPU 0: NVIDIA H100 80GB HBM3: no model for it is here yet.")
    assert said[2].strip() == ".venv/bin/streamlift weights pull realesrgan-x2"
    assert said[-1] == "serve --demo --port 0"


def test_with_weights_for_a_card_it_says_nothing(checkout: Path) -> None:
    (file,) = (c for c in CHECKPOINTS if c.upscalers == ("realesrgan-x2",))
    path = checkout / "weights" / file.name
    path.parent.mkdir(parents=True)
    with path.open("wb") as sparse:
        sparse.truncate(file.size)
    assert run(checkout, card=True) == ["extras server,cluster,torch", "serve --demo --port 0"]


def test_without_a_card_it_says_nothing(checkout: Path) -> None:
    assert run(checkout, card=False) == ["extras server,cluster", "serve --demo --port 0"]
