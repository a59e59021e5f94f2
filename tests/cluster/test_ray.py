"""A real Ray of three nodes on this machine: who is killed, and what viewers see of it.

The service runs in this process and must never import ray. What one fault does to a picture is
`test_two_machines`' business; here it is about who comes back, and who must not be touched.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from scripts.children import bound, stop
from tests.staged import Stage, stage
from tests.waiting import until

from streamlift.config import BackendConfig, ClusterConfig

# Looked for, not imported: nothing in this process may bring Ray in.
LACKING = [name for name in ("ray", "grpc") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(LACKING), reason=f"not installed: {', '.join(LACKING)} (extra ray)"),
]

TOKEN = "0123456789abcdef0123456789abcdef"
START_S = 120.0
"""Ray takes half a minute on a busy machine."""
HEADLESS_S = 120.0
"""By default Ray ends its processes 60 s after the head is gone; less would prove nothing."""
LABEL = ("--labels", "ray.io/accelerator-type=H100")


@dataclass(slots=True, eq=False)
class Cluster:
    """A head without work, and two nodes that call themselves an H100."""

    client_port: int
    folder: Path
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONASYNCIODEBUG"} | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            "GRPC_ENABLE_FORK_SUPPORT": "0",  # https://github.com/ray-project/ray/issues/63202
            "RAY_gcs_rpc_server_reconnect_timeout_s": "3600",
            "RAY_health_check_initial_delay_ms": "5000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "3",
            "STREAMLIFT_CLUSTER__TOKEN": TOKEN,
            "STREAMLIFT_WORKER_DEVICE": "cpu",
        }
        log = self.folder / f"{len(self.nodes)}.log"
        with log.open("wb") as out:
            node = subprocess.Popen(
                bound(
                    *(sys.executable, "-c", "from ray.scripts.scripts import main; main()"),
                    *("start", "--block", "--disable-usage-stats", *arguments),
                    *("--object-store-memory", "100000000"),
                    *("--min-worker-port", "0", "--max-worker-port", "0"),
                ),
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self.nodes.append(node)
        deadline_s = time.monotonic() + START_S
        while "Ray runtime started" not in (said := log.read_text(errors="replace")):
            assert node.poll() is None, said
            assert time.monotonic() < deadline_s, said
            time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Its sockets' paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="sl-", dir="/tmp"))
    port, client_port = free_port(), free_port()
    made = Cluster(client_port, folder)
    try:
        made.start(
            *("--head", "--port", str(port), "--ray-client-server-port", str(client_port)),
            *("--num-cpus", "0", "--include-dashboard=false", "--temp-dir", str(folder)),
            *("--node-ip-address", "127.0.0.1"),
        )
        for _ in range(2):
            at = f"{address_of(made.folder / '0.log')}:{port}"
            made.start("--address", at, "--num-cpus", "4", "--num-gpus", "1", *LABEL)
        yield made
    finally:
        for node in reversed(made.nodes):
            stop(node)
        # What a node that was killed has left behind.
        for pid in processes(str(folder)):
            if pid != os.getpid():
                kill(pid)
        shutil.rmtree(folder, ignore_errors=True)


def address_of(log: Path) -> str:
    """What the head calls itself; it does not always take 127.0.0.1."""
    for line in log.read_text(errors="replace").splitlines():
        if "Local node IP:" in line:
            return line.rpartition(": ")[2].strip()
    raise AssertionError(log.read_text(errors="replace"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kill(pid: int, sign: signal.Signals = signal.SIGKILL) -> None:
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return


def processes(*words: str) -> list[int]:
    """Of which command line all words are part."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
            except OSError:
                continue
            if all(word in line for word in words):
                found.append(int(entry.name))
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def worker() -> int:
    """The one worker process that there is."""
    (pid,) = processes("streamlift.cli worker --lifeline", "--name ai-0")
    return pid


def placer() -> int:
    (pid,) = [p for p in processes("streamlift.cluster.placer") if parent(p) == os.getpid()]
    return pid


@asynccontextmanager
async def anchored(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """A service that asks this Ray for a worker, its stream shown by that."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    remote = BackendConfig("ai", "bicubic", device="H100", link="remote", slots=4)
    settings = ClusterConfig(placement=f"ray://127.0.0.1:{cluster.client_port}", token=TOKEN)
    async with stage(
        BackendConfig("bicubic", "bicubic", slots=8), remote, fps=10, cluster=settings
    ) as on:
        await ready(on)
        await on.switched("ai")
        await on.viewer.more(10)
        yield on
    assert "ray" not in sys.modules


async def ready(on: Stage) -> None:
    async def there() -> bool:
        backends = await on.service.read("/api/v1/backends")
        return any(b["name"] == "ai" and b["state"] == "ready" for b in backends["backends"])

    await until(there, "a worker", timeout_s=START_S, show=lambda: why(on))


def why(on: Stage) -> str:
    return on.service.parts.no_new_workers()


async def test_placer_actor_and_node_are_killed_and_the_stream_comes_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with anchored(cluster, monkeypatch) as on:
        backends = (await on.service.read("/api/v1/backends"))["backends"]
        (ai,) = [b for b in backends if b["name"] == "ai"]
        assert "H100" in ai["device"]

        # The placer: nobody sees anything, and another one takes its place.
        first, served = placer(), worker()
        events = len(on.events)
        kill(first)
        await until(lambda: placer_or_none() not in (None, first), "another placer", timeout_s=60)
        await until(lambda: why(on) == "", "it to join", timeout_s=START_S, show=lambda: why(on))
        assert on.events[events:] == []
        assert worker() == served

        # The actor: its worker ends with it, Ray starts it again, the stream goes back there.
        kill(parent(served))
        await until(lambda: not alive(served), "the worker to end with its host", timeout_s=30)
        await back(on, served)

        # The node: Ray starts the actor on the other one.
        served = worker()
        raylet = parent(parent(served))
        assert raylet in processes("raylet/raylet")
        kill(raylet)
        await until(lambda: not alive(served), "the worker to end with its node", timeout_s=60)
        await back(on, served)
        assert (await on.service.read("/healthz"))["status"] == "ok"


async def back(on: Stage, before: int) -> None:
    """Wait until another worker shows the stream."""
    await until(
        lambda: bool(set(processes("streamlift.cli worker --lifeline")) - {before}),
        "another worker",
        timeout_s=START_S,
        show=lambda: why(on),
    )
    await ready(on)
    await on.settled("ai", timeout_s=120)
    await on.viewer.more(10)


async def test_a_head_that_is_gone_for_two_minutes_disturbs_nobody(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with anchored(cluster, monkeypatch) as on:
        served, events = worker(), len(on.events)
        (gcs,) = processes("gcs_server", str(cluster.folder))
        seen = len(on.viewer.shown)
        kill(gcs)
        deadline_s = time.monotonic() + HEADLESS_S
        await until(lambda: why(on) != "", "the anchor to say so", timeout_s=HEADLESS_S)
        while time.monotonic() < deadline_s:
            await asyncio.sleep(1)
            assert alive(served), f"the worker is gone {deadline_s - time.monotonic():.0f} s early"
        # A machine that is too busy to be in time is not what is looked for: three nodes of Ray and
        # a service share it. A worker that had ended would be told of in other words.
        faults = [e["reason"] for e in on.events[events:] if e["event"] == "fault"]
        assert [r for r in faults if "too slow" not in r and "no answer" not in r] == []
        assert worker() == served
        assert len(on.viewer.shown) - seen > HEADLESS_S, "pictures came all the time"
        await on.settled("ai", timeout_s=60)
        answer = await on.service.read("/readyz")
        assert answer["ready"]
        assert "no new workers" in answer["placement"]


def placer_or_none() -> int | None:
    try:
        return placer()
    except ValueError:
        return None


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
