"""Two processes that fetch one file: one does, the other waits and finds it there."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.upscalers.weights.shelf import BODY, Shelf, checkpoint_on, store_of

from streamlift.upscalers.weights.lock import only_one

HOLDER = """
import sys, pathlib
from streamlift.upscalers.weights.lock import only_one
with only_one(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until it is told, or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_waits(tmp_path: Path) -> None:
    path, entered = tmp_path / "net.pth", threading.Event()

    def enter() -> None:
        with only_one(path):
            entered.set()

    with holder(path) as process:
        waiting = threading.Thread(target=enter)
        waiting.start()
        assert not entered.wait(0.2)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        waiting.join(30)
    assert entered.is_set()
    assert list(tmp_path.iterdir()) == []


def test_waiting_for_another_process_can_be_given_up(tmp_path: Path) -> None:
    asked: list[int] = []

    def tired() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise ZeroDivisionError

    with holder(tmp_path / "net.pth"):
        waiting = only_one(tmp_path / "net.pth", tired)
        with pytest.raises(ZeroDivisionError):
            waiting.__enter__()
        assert len(asked) == 2


def test_a_process_that_dies_lets_go(tmp_path: Path) -> None:
    with holder(tmp_path / "net.pth") as process:
        process.kill()
    with only_one(tmp_path / "net.pth"):
        assert [p.name for p in tmp_path.iterdir()] == ["net.pth.lock"]


def test_two_pulls_at_once_both_succeed_and_ask_once(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf, pinned=False)
    shelf.slow_s = 0.2
    found: list[bytes] = []

    def pull() -> None:
        store = store_of(tmp_path, checkpoint)
        found.append(store.pull(checkpoint, allow_unpinned=True).read_bytes())

    threads = [threading.Thread(target=pull) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert found == [BODY] * 3
    assert shelf.ranges == [None]
