"""The anchor's side of Ray, with a placer that the test writes: what it does disturbs nobody."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serving import light
from tests.waiting import until

from streamlift.cli.serve import _check_ray
from streamlift.clock import MonotonicClock
from streamlift.cluster.placement import Placement, order_for
from streamlift.cluster.roster import WorkerAddress
from streamlift.config import BackendConfig, ClusterConfig, Config
from streamlift.errors import ConfigError

PLACER = """
import json, os, sys, time
order = json.loads(sys.stdin.readline())
told = order["told"]
while True:
    for line in open(told).read().splitlines():
        if line == "end":
            print("Ray says: no such head", file=sys.stderr, flush=True)
            sys.exit(1)
        print(line, flush=True)
    time.sleep(0.02)
"""


class FakeRoster:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.workers: set[WorkerAddress] = set()
        self.updates = 0

    async def update(self, workers: Iterable[WorkerAddress]) -> None:
        self.workers = set(workers)
        self.updates += 1


def line(**addresses: str) -> str:
    """What a placer says: flashvsr_0="10.0.0.7:8600", or "" for one that it cannot find."""
    hosts = {
        name.replace("_", "-"): {
            "backend": name.partition("_")[0],
            "state": "ready" if address else "unavailable",
            "reason": "" if address else "no node has room",
            "address": address,
            "fingerprint": None,
        }
        for name, address in addresses.items()
    }
    return json.dumps({"hosts": hosts})


@asynccontextmanager
async def placing(told: Path, silent_s: float = 20) -> AsyncIterator[tuple[Placement, FakeRoster]]:
    roster: Any = FakeRoster()
    placement = Placement(
        {"told": str(told)},
        roster,
        clock=MonotonicClock(),
        command=(sys.executable, "-c", PLACER),
        first_wait_s=0.01,
        silent_s=silent_s,
    )
    running = asyncio.create_task(placement.run())
    try:
        yield placement, roster
    finally:
        running.cancel()
        await asyncio.wait([running])
        assert placement.pid is None


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tmp_path / "told"


def say(told: Path, text: str) -> None:
    """In one step, so that no half of it is read."""
    told.with_suffix(".new").write_text(text + "\n", encoding="utf-8")
    told.with_suffix(".new").replace(told)


async def test_what_the_placer_tells_is_dialled_and_what_it_lost_is_kept(told: Path) -> None:
    say(told, line(flashvsr_0="10.0.0.7:8600", flashvsr_1=""))
    async with placing(told) as (placement, roster):
        await until(lambda: len(roster.workers) == 1, "a worker")
        assert "flashvsr-1: unavailable: no node has room" in placement.reason
        say(told, line(flashvsr_0="", flashvsr_1="10.0.0.8:8600"))
        await until(lambda: len(roster.workers) == 2, "the second worker")
        # One that came back elsewhere is dialled there, and its old address given up.
        say(told, line(flashvsr_0="10.0.0.9:8600", flashvsr_1="10.0.0.8:8600"))
        await until(lambda: placement.reason == "", "all to be ready")
        assert {w.address for w in roster.workers} == {"10.0.0.9:8600", "10.0.0.8:8600"}
        updates = roster.updates
        await asyncio.sleep(0.2)
        assert roster.updates == updates, "the same again is no news"


async def test_a_placer_that_ends_or_is_killed_is_started_again(told: Path) -> None:
    say(told, line(flashvsr_0="10.0.0.7:8600"))
    async with placing(told) as (placement, roster):
        await until(lambda: len(roster.workers) == 1, "a worker")
        say(told, "end")
        await until(lambda: "no such head" in placement.reason, "the reason")
        assert len(roster.workers) == 1
        say(told, line(flashvsr_0="10.0.0.7:8600"))
        await until(lambda: placement.reason == "", "another placer")
        starts, pid = placement.starts, placement.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: placement.starts > starts and not placement.reason, "a third one")
        assert roster.updates == 1, "its workers were never hung up on"


async def test_a_placer_that_hangs_or_says_nonsense_is_replaced(told: Path) -> None:
    say(told, f"Ray is loading\n[]\n{line(flashvsr_0='10.0.0.7:8600')}")
    async with placing(told, silent_s=2.0) as (placement, roster):
        await until(lambda: len(roster.workers) == 1, "a worker, in spite of other lines")
        starts, pid = placement.starts, placement.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: "said nothing" in placement.reason, "to be noticed", timeout_s=30)
        await until(lambda: placement.starts > starts, "another placer", timeout_s=30)
        assert len(roster.workers) == 1


async def test_a_placer_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    roster: Any = FakeRoster()
    absent = str(tmp_path / "absent")
    placement = Placement({}, roster, clock=MonotonicClock(), command=(absent,), first_wait_s=0.01)
    running = asyncio.create_task(placement.run())
    await until(lambda: placement.starts >= 3 or running.done(), "a third try")
    assert not running.done()
    assert "it cannot be started: " in placement.reason
    assert absent in placement.reason
    running.cancel()
    await asyncio.wait([running])


def config(placement: str = "ray://10.0.0.5:10001", **cluster: Any) -> Config:
    backends = (
        BackendConfig("flashvsr", "flashvsr", device="H100", link="remote", workers=2),
        BackendConfig("bicubic", "bicubic"),
    )
    return light(backends=backends, cluster=ClusterConfig(placement=placement, **cluster))


def test_the_order_says_what_and_where_and_no_secret() -> None:
    given = config(token="0123456789abcdef")
    order = order_for(given, given.named_backends[:1])
    assert "0123456789abcdef" not in json.dumps(order)
    (backend,) = order["backends"]
    assert (backend["name"], backend["device"], backend["workers"]) == ("flashvsr", "H100", 2)
    (told,) = backend["configuration"]["backends"]
    assert (told["link"], told["workers"]) == ("inproc", 1)


TOKEN = {"RAY_AUTH_MODE": "token"}


@pytest.mark.parametrize(
    ("given", "environ", "said"),
    [
        (config(), {}, "RAY_AUTH_MODE"),
        (config(token="0123456789abcdef"), {"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE"),
        (config(), TOKEN, "cluster.token"),
        (light(cluster=ClusterConfig(placement="ray://10.0.0.5:10001")), TOKEN, "link: remote"),
    ],
)
def test_an_open_or_useless_ray_is_refused(
    given: Config, environ: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(ConfigError, match=said):
        _check_ray(given, environ)
    _check_ray(config(token="0123456789abcdef"), TOKEN)
    _check_ray(config("ray://127.0.0.1:10001"), {})
    _check_ray(light(), {})


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"streamlift\[server,ray\]"):
        _check_ray(config(), TOKEN)


async def test_readyz_tells_those_with_a_token_what_is_in_the_way(
    call: Callable[..., Any],
) -> None:
    http: httpx.AsyncClient = await call()
    transport: Any = http._transport
    transport.app.state.service.no_new_workers = lambda: "no new workers since 3 s: no such head"
    answer = await http.get("/readyz")
    assert answer.status_code == 200
    assert "no such head" in answer.json()["placement"]
