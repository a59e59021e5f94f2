"""A run that is interrupted, or whose pytest is killed, leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripts.children import bound

pytestmark = pytest.mark.peer

ROOT = Path(__file__).parents[1]
CHILDREN = """
import asyncio, signal, subprocess, sys
from pathlib import Path

# A shell that starts a run in the background has it ignore Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
from scripts.children import bound
from tests.commands import running

async def test_children():
    async with running("serve", "--port", "0", "--demo", "--backend", "bicubic") as serve:
        other = subprocess.Popen(bound(sys.executable, "-c", "import time; time.sleep(600)"))
        children = Path(f"/proc/{serve.pid}/task/{serve.pid}/children")
        while not (demo := children.read_text().split()):
            await asyncio.sleep(0.05)
        try:
            print("PIDS", serve.pid, other.pid, *demo, flush=True)
            await asyncio.sleep(600)
        finally:
            other.kill()
            other.wait()
            print("CLOSED", flush=True)
"""


@pytest.fixture
def interrupted(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A pytest whose test has started children, and their process ids."""
    test = tmp_path / "test_children.py"
    test.write_text(CHILDREN)
    options = ["-s", "-p", "no:cacheprovider", "-p", "tests.conftest"]
    options += ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
    with subprocess.Popen(
        bound(sys.executable, "-m", "pytest", *options, str(test)),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        try:
            told = next((line for line in run.stdout if "PIDS" in line), "")
            yield run, [int(pid) for pid in told.partition("PIDS")[2].split()]
        finally:
            run.kill()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_closes_what_it_opened_and_says_so(
    interrupted: tuple[subprocess.Popen[str], list[int]], how: signal.Signals
) -> None:
    run, children = interrupted
    assert len(children) == 3
    run.send_signal(how)
    output, _ = run.communicate(timeout=60)
    assert "CLOSED" in output
    assert "KeyboardInterrupt" in output
    assert run.returncode == pytest.ExitCode.INTERRUPTED
    _wait_until(lambda: not any(map(_alive, children)), f"{children} to be gone")


def test_the_children_of_a_killed_run_go_with_it(
    interrupted: tuple[subprocess.Popen[str], list[int]],
) -> None:
    run, children = interrupted
    assert len(children) == 3
    run.kill()
    run.communicate(timeout=60)
    _wait_until(lambda: not any(map(_alive, children)), f"{children} to be gone")


def _alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _wait_until(check: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain for {what}"
        time.sleep(0.05)
