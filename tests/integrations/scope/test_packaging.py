"""How the plugin sits beside Scope: its entry point, its imports, its dependencies."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[3]
PLUGIN = "streamlift.integrations.scope.plugin"

# What Scope 0.2.4 asks for.
SCOPE_ASKS = [
    Requirement(text)
    for text in (
        "torch==2.9.1",
        "torchvision==0.24.1",
        "triton==3.5.1",
        "aiortc>=1.14,<2",
        "fastapi>=0.128,<1",
        "uvicorn>=0.40,<1",
        "httpx>=0.28.1,<1",
        "aiohttp>=3.13.3,<4",
        "huggingface-hub>=0.36,<1",
        "transformers>=4.57.5,<5",
        "safetensors>=0.7,<1",
        "protobuf>=6.33.5,<7",
        "click>=8.3.1,<9",
    )
]
SCOPE_HAS = {
    # Its pins and locks; for the others the lowest version that its ranges allow.
    "numpy": "2.4.1",
    "torch": "2.9.1",
    "safetensors": "0.7.0",
}
SCOPE_LEAVES_OPEN = {"pyyaml"}


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def imported_by(code: str) -> dict[str, Any]:
    """Run `code` in a fresh interpreter; which modules it imported and how long it took."""
    script = (
        "import json, sys, time; start = time.process_time()\n"
        f"{code}\n"
        "print(json.dumps({'seconds': time.process_time() - start, 'modules': list(sys.modules)}))"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    result: dict[str, Any] = json.loads(output)
    return result


def test_there_is_exactly_one_entry_point_and_it_is_the_plugin() -> None:
    assert list(project()["entry-points"]["scope"].values()) == [PLUGIN]


def test_the_plugin_costs_scope_less_than_numpy_and_imports_nothing_heavy() -> None:
    result = imported_by(f"import {PLUGIN}")
    heavy = {"torch", "fastapi", "aiortc", "av", "cv2", "numpy", "pydantic", "httpx"}
    assert heavy.isdisjoint(result["modules"])
    assert result["seconds"] < imported_by("import numpy")["seconds"]  # some 35 ms of 160


def test_the_postprocessor_needs_no_server_parts() -> None:
    result = imported_by("import streamlift.integrations.scope.postprocessor")
    assert {"fastapi", "aiortc", "av", "cv2", "onnxruntime"}.isdisjoint(result["modules"])
    assert "torch" in result["modules"]


def test_the_hook_registers_a_stage_for_each_set_of_files() -> None:
    result = imported_by(
        f"from {PLUGIN} import register_pipelines\n"
        "seen = []; register_pipelines(seen.append)\n"
        "names = [c.__name__ for c in seen]\n"
        "assert names == ['Upscale', 'UpscaleFlashVsr', 'UpscaleRealEsrgan'], names"
    )
    assert "streamlift.integrations.scope.postprocessor" in result["modules"]


def test_what_scope_has_locked_satisfies_our_ranges_so_nothing_of_it_is_replaced() -> None:
    extras = project()["optional-dependencies"]
    ours = [Requirement(r) for r in [*project()["dependencies"], *extras["torch"]]]
    assert {r.name for r in ours} <= set(SCOPE_HAS) | SCOPE_LEAVES_OPEN
    for requirement in ours:
        if requirement.name not in SCOPE_LEAVES_OPEN:
            assert Version(SCOPE_HAS[requirement.name]) in requirement.specifier, requirement


def test_base_dependencies_name_nothing_that_scope_pins() -> None:
    asked = {r.name for r in SCOPE_ASKS}
    assert asked.isdisjoint(Requirement(r).name for r in project()["dependencies"])


def test_the_python_that_scope_needs_is_one_of_ours() -> None:
    specifiers = Requirement(f"python{project()['requires-python']}").specifier
    assert Version("3.12.0") in specifiers
