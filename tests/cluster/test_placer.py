"""The placer and the worker host without Ray: what is asked, told, kept and started again."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from streamlift.cluster.host import DEVICE_VARIABLE, HostedWorker, node_device, sweep
from streamlift.cluster.placer import Hosts, LostHost, Wanted, selector, wanted_of

SOURCE = Path(__file__).parents[2] / "src" / "streamlift"
READY = {"state": "ready", "reason": "", "address": "10.0.0.7:8600", "fingerprint": "sha256:0"}


class FakeActors:
    """Actors whose answers the test gives."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, dict[str, Any] | Exception | None] = {}

    def ask(self, wanted: Wanted) -> Any:
        self.asked.append(wanted.name)
        return wanted.name

    def answer(self, asked: Any) -> dict[str, Any] | None:
        answer = self.answers.get(asked)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Time:
    now_s = 0.0


def two_hosts() -> tuple[Hosts, FakeActors, Time]:
    actors, clock = FakeActors(), Time()
    wanted = [Wanted(f"flashvsr-{n}", "flashvsr", "H100", {}) for n in range(2)]
    return Hosts(actors, wanted, lambda: clock.now_s), actors, clock


def test_workers_are_named_alike_by_every_anchor() -> None:
    backend = {"name": "flashvsr", "device": "H100", "workers": 2, "configuration": {"a": 1}}
    names = [wanted.name for wanted in wanted_of({"backends": [backend]})]
    assert names == ["flashvsr-0", "flashvsr-1"]


@pytest.mark.parametrize(
    ("device", "labels"),
    [
        ("cpu", {}),
        ("H100", {"ray.io/accelerator-type": "H100"}),
        ("H100|H200", {"ray.io/accelerator-type": "in(H100,H200)"}),
        ("RTX 5090", {"ray.io/accelerator-type": "RTX5090"}),
    ],
)
def test_a_device_becomes_a_label_that_nodes_carry(device: str, labels: dict[str, str]) -> None:
    assert selector(device) == labels


def test_a_slow_host_holds_up_no_other_and_is_asked_once() -> None:
    hosts, actors, clock = two_hosts()
    actors.answers["flashvsr-1"] = READY
    hosts.round()
    clock.now_s = 60
    told = hosts.round()["hosts"]
    assert told["flashvsr-1"]["address"] == READY["address"]
    assert told["flashvsr-0"]["address"] == ""
    assert "60 s for a node with H100" in told["flashvsr-0"]["reason"]
    hosts.round()
    assert actors.asked.count("flashvsr-0") == 1
    assert actors.asked.count("flashvsr-1") > 1


def test_a_host_that_is_lost_is_asked_for_again() -> None:
    hosts, actors, _ = two_hosts()
    actors.answers = {"flashvsr-0": READY, "flashvsr-1": READY}
    hosts.round()
    assert hosts.round()["hosts"]["flashvsr-0"]["state"] == "ready"
    actors.answers["flashvsr-0"] = LostHost("its node has died")
    lost = hosts.round()["hosts"]["flashvsr-0"]
    assert (lost["state"], lost["address"]) == ("unavailable", "")
    assert "node has died" in lost["reason"]
    actors.answers["flashvsr-0"] = {**READY, "address": "10.0.0.8:8600"}
    hosts.round()
    assert hosts.round()["hosts"]["flashvsr-0"]["address"] == "10.0.0.8:8600"


def test_what_a_worker_runs_on() -> None:
    assert node_device({}, "cpu", given_gpu=False) == ("cpu", None)
    assert node_device({}, "H100|H200", given_gpu=True) == ("cuda:0", None)
    device, label = node_device({DEVICE_VARIABLE: "cpu"}, "H100", given_gpu=False)
    assert device == "cpu"
    assert label is not None
    assert "H100" in label
    assert "cpu" in label


def test_only_placer_and_host_import_ray() -> None:
    """What an anchor imports must not: Ray would end it a minute after its head."""
    importing = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(n.name.split(".")[0] == "ray" for n in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ray")
    }
    assert importing == {"cluster/host.py", "cluster/placer.py"}


WORKER = """
import os, sys, time
told = sys.stdin.readline()
print("listening w 127.0.0.1:8600", flush=True)
print("ready w 127.0.0.1:8600", flush=True)
print("so it ends", file=sys.stderr, flush=True)
if "ends" in told:
    sys.exit(3)
sys.stdin.read()
"""


def wait_for(hosted: HostedWorker, **expected: Any) -> dict[str, Any]:
    deadline_s = time.monotonic() + 30
    while True:
        status = hosted.status()
        if all(status[key] == value for key, value in expected.items()):
            return status
        assert time.monotonic() < deadline_s, status
        time.sleep(0.01)


def test_a_worker_is_told_of_when_it_is_ready_and_ends_with_its_host() -> None:
    hosted = HostedWorker([sys.executable, "-c", WORKER], {}, {})
    pid = wait_for(hosted, state="ready")["pid"]
    assert hosted.status()["address"] == "127.0.0.1:8600"
    hosted.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_that_ends_is_started_again_each_time_later() -> None:
    waits: list[float] = []

    def wait(ending: threading.Event, seconds: float) -> bool:
        waits.append(seconds)
        return ending.wait(0.01)

    hosted = HostedWorker([sys.executable, "-c", WORKER], {"ends": 1}, {}, wait=wait)
    status = wait_for(hosted, restarts=4)
    hosted.close()
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert status["reason"] in ("exit 3 (so it ends)", "loading its model", "")


def test_what_a_killed_host_left_is_removed_by_the_next(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], **CAPTURED)
    for pid in (ended.stdout.strip(), os.getpid()):
        (tmp_path / f"streamlift-host-{pid}-x").mkdir()
    (tmp_path / "streamlift-other").mkdir()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"streamlift-host-{os.getpid()}-x",
        "streamlift-other",
    }


CAPTURED: Any = {"capture_output": True, "text": True, "check": True}


def test_a_program_that_is_not_there_is_a_reason() -> None:
    hosted = HostedWorker(["/nowhere/streamlift"], {}, {})
    assert "No such file" in wait_for(hosted, state="unavailable")["reason"]
    hosted.close()
