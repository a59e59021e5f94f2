"""The wheel and the source package: built, installed into empty environments, and run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

import pytest
from scripts.children import bound

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
LIMIT_S = 170
NO_INDEX = ("error sending request", "dns error", "Could not connect", "No matching distribution")


@dataclass(frozen=True)
class Built:
    wheel: Path
    source: Path


def run(*command: str | Path) -> str:
    """What it prints. Skips when it is the package index that is out of reach."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("STREAMLIFT_")},
    )
    if done.returncode and any(words in done.stderr for words in NO_INDEX):
        pytest.skip(f"no package index can be reached: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both, the wheel made from the source package as an index's users would."""
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "-q", "--no-build-isolation", "-p", sys.executable, "--out-dir", folder, ROOT)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, source)


@pytest.mark.long
def test_the_packages_hold_what_the_code_needs_and_no_more(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        inside = set(wheel.namelist())
        size = built.wheel.stat().st_size
    ours = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src/streamlift").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in inside if ".dist-info/" not in name} == ours
    assert size < 5_000_000
    with tarfile.open(built.source) as source:
        top = {name.split("/")[1] for name in source.getnames()}
    assert top == {
        "CHANGELOG.md",
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "pyproject.toml",
        "src",
        ".gitignore",
    }


@pytest.mark.client
def test_uv_installs_the_wheel_into_an_empty_environment(built: Built, tmp_path: Path) -> None:
    run(UV, "venv", "-q", "-p", sys.executable, tmp_path)
    python = tmp_path / "bin/python"
    run(UV, "pip", "install", "-q", "-p", python, built.wheel)
    found = json.loads(run(UV, "pip", "list", "-q", "--format", "json", "-p", python))
    assert {package["name"] for package in found} == {"numpy", "pyyaml", "streamlift"}
    assert run(tmp_path / "bin/streamlift", "--version").startswith("streamlift ")


@pytest.mark.client
def test_pip_installs_the_wheel_into_an_empty_environment(built: Built, tmp_path: Path) -> None:
    run(UV, "venv", "-q", "-p", sys.executable, tmp_path)
    pip = (sys.executable, "-m", "pip", "--python", tmp_path / "bin/python")
    run(*pip, "install", "-q", "--disable-pip-version-check", built.wheel)
    assert run(tmp_path / "bin/streamlift", "--version").startswith("streamlift ")


@pytest.mark.client
def test_uvx_serves_the_demo_from_the_wheel(built: Built) -> None:
    command = [str(UV), "tool", "run", "-q", "-p", sys.executable]
    command += ["--from", f"{built.wheel}[server]"]
    command += ["streamlift", "serve", "--demo", "--backend", "bicubic", "--port", "0"]
    environment = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("STREAMLIFT_") and k not in ("PYTHONPATH", "PYTHONASYNCIODEBUG")
    }
    process = subprocess.Popen(
        bound(*command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    late = Timer(LIMIT_S, process.kill)
    late.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # after all is installed
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        if address is None:
            _, said = process.communicate()
            if any(words in said for words in NO_INDEX):
                pytest.skip(f"no package index can be reached: {said[-300:]}")
            raise AssertionError(f"{line}{said}")
        assert _delivers(f"{address[0]}/api/v1/streams/demo")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
        late.cancel()


def _delivers(url: str, within_s: float = 60) -> bool:
    """Whether the stream gives pictures back."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        try:
            with urllib.request.urlopen(url) as answer:
                if json.load(answer)["frames"]["upscaled"] > 0:
                    return True
        except OSError:
            pass  # 404 until the demo's publisher is there
        time.sleep(0.2)
    return False


@pytest.mark.client
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_extra_can_be_resolved(version: str, tmp_path: Path) -> None:
    """But `rtx`, whose packages are on NVIDIA's own index."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = sorted(set(project["optional-dependencies"]) - {"rtx"})
    chosen = [part for extra in extras for part in ("--extra", extra)]
    output = tmp_path / "resolved.txt"
    command = ("pip", "compile", "-q", "pyproject.toml", "--python-version", version)
    run(UV, *command, *chosen, "-o", output)
    assert "aiortc==" in output.read_text()


@pytest.mark.client
def test_the_client_works_with_its_extra_alone(built: Built, tmp_path: Path) -> None:
    run(UV, "venv", "-q", "-p", sys.executable, tmp_path)
    python = tmp_path / "bin/python"
    run(UV, "pip", "install", "-q", "-p", python, f"{built.wheel}[client]")
    found = json.loads(run(UV, "pip", "list", "-q", "--format", "json", "-p", python))
    names = {package["name"] for package in found}
    assert {"aiortc", "av", "httpx"} <= names
    assert not names & {"fastapi", "uvicorn", "onnxruntime", "opencv-python-headless", "torch"}
    run(
        python,
        "-c",
        "import asyncio, streamlift.client as c\n"
        "c.publish, c.watch, c.Picture, c.Publication\n"
        "async def main():\n"
        "    try:\n"
        "        async with c.Client('http://127.0.0.1:9') as client: await client.streams()\n"
        "    except c.Unreachable: pass\n"
        "    else: raise SystemExit('reached')\n"
        "    try:\n"
        "        async with c.publish('http://127.0.0.1:9/whip/a'): pass\n"
        "    except c.Unreachable: return\n"
        "    raise SystemExit('published')\n"
        "asyncio.run(main())",
    )


@pytest.mark.client
def test_without_its_extra_the_client_says_what_to_install(built: Built, tmp_path: Path) -> None:
    run(UV, "venv", "-q", "-p", sys.executable, tmp_path)
    run(UV, "pip", "install", "-q", "-p", tmp_path / "bin/python", built.wheel)
    done = subprocess.run(
        [tmp_path / "bin/python", "-c", "from streamlift.client import publish"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert "pip install 'streamlift[client]'" in done.stderr
