"""scripts/test_gpu collects, and skips without a card, where little is installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the GPU tests need torch")

ROOT = Path(__file__).parents[1]
_BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.long
def test_it_needs_torch_and_pytest_and_neither_codecs_nor_a_server(tmp_path: Path) -> None:
    names = ("av", "aiortc", "cv2", "fastapi", "uvicorn", "onnxruntime", "pytest_asyncio", "httpx")
    (tmp_path / "sitecustomize.py").write_text(_BLOCK.format(names=names))
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # as if no plugin were installed
        "CUDA_VISIBLE_DEVICES": "",
    }
    run = subprocess.run(
        [ROOT / "scripts" / "test_gpu", "-q"], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "skipped" in run.stdout
    assert "passed" not in run.stdout
