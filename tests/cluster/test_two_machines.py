"""Faults of workers on other machines, as viewers see them. Each window beside one without it.

Workers run in network namespaces of their own; the service, its publisher and its viewers here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from scripts.children import bound, read, wait_for
from tests.machine import in_time
from tests.staged import Stage, stage
from tests.stamped import Shown, StampViewer, lost, max_gap_ms, sending, viewing
from tests.waiting import until

pytest.importorskip("grpc", reason="needs the extra cluster")

from scripts.two_machines import Worker, cluster_of, machine, why_not

from streamlift.clock import MonotonicClock
from streamlift.cluster.roster import WorkerAddress, link_to
from streamlift.config import BackendConfig, Config
from streamlift.frames import BackendInfo
from streamlift.metrics import Metrics

REASON = why_not()
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]

AI = {"name": "ai", "upscaler": "bicubic", "slots": 8}
PLAIN = BackendConfig("bicubic", "bicubic", slots=16)
REMOTE = BackendConfig("ai", "bicubic", link="remote")


@pytest.fixture
def two() -> Iterator[tuple[Worker, Worker]]:
    """Two ready workers of backend `ai`, each on a machine of its own."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(AI, stack.enter_context(machine()))) for _ in range(2)
        ]
        for worker in workers:
            worker.wait_ready()
        yield workers[0], workers[1]


@pytest.fixture
def one() -> Iterator[Worker]:
    with machine() as where, Worker(AI, where) as worker:
        worker.wait_ready()
        yield worker


@dataclass(slots=True, eq=False)
class Three:
    """Three streams on `ai` with a viewer each, and their events."""

    on: Stage
    viewers: list[StampViewer]

    @property
    def info(self) -> BackendInfo:
        return next(b for b in self.on.service.parts.router.backends() if b.name == "ai")

    @property
    def lanes(self) -> dict[str, int]:
        """How many lanes each worker has, by address."""
        backend: Any = self.on.service.parts.router.table["ai"]
        return {link.address: len(link.lanes) for link in backend.links}

    def state_of(self, worker: Worker) -> str:
        return next(w.state for w in self.info.workers if w.address == worker.address)

    def counted(self, name: str, **labels: str) -> float:
        return self.on.service.parts.metrics.value(name, **labels)

    async def all_on(self, backend: str, timeout_s: float = 15.0) -> None:
        await until(
            lambda: all(
                s.backend == backend and s.state == "live"
                for s in self.on.service.parts.router.streams()
            ),
            f"all streams on {backend}",
            timeout_s=timeout_s,
            show=lambda: self.on.events,
        )


@asynccontextmanager
async def three(*workers: Worker, streams: int = 3) -> AsyncIterator[Three]:
    """`live`, and others beside it."""
    async with AsyncExitStack() as stack:
        cluster = cluster_of(*workers)
        on = await stack.enter_async_context(stage(REMOTE, PLAIN, cluster=cluster))
        viewers = [on.viewer]
        for number in range(1, streams):
            await stack.enter_async_context(sending(on.service.whip(f"s{number}")))
            await on.service.live(f"s{number}")
            viewer = viewing(on.service.whep(f"s{number}"))
            viewers.append(await stack.enter_async_context(viewer))
        made = Three(on, viewers)
        await made.all_on("ai")
        yield made


def seen(viewers: list[StampViewer], since_s: float, for_s: float) -> list[list[Shown]]:
    return [
        [one for one in viewer.since(since_s - 0.1) if one.at_s < since_s + for_s]
        for viewer in viewers
    ]


def worst_ms(windows: list[list[Shown]]) -> float:
    return max(max_gap_ms(window) for window in windows)


async def control(on: Three, for_s: float) -> float:
    """The longest gap while nothing happens."""
    began_s = on.on.viewer.clock.now_s()
    await asyncio.sleep(for_s)
    return worst_ms(seen(on.viewers, began_s, for_s))


def judged(gap_ms: float, longest_ms: float, control_ms: float, what: str) -> list[str]:
    """A gap that is too long, unless nothing at all had happened and it was as long."""
    limit_ms = max(longest_ms, 2 * control_ms)
    told = f"{what}: a gap of {gap_ms:.0f} ms; without the fault {control_ms:.0f} ms"
    return [told] if gap_ms > limit_ms else []


async def fault_and_return(
    on: Three, inflict: Callable[[], None], longest_ms: float, kind: str
) -> list[str]:
    """Inflict it on whoever has the lanes; wait for all to be back on `ai`."""
    before_ms = await control(on, 2.0)
    at_s = on.on.viewer.clock.now_s()
    inflict()
    await until(
        lambda: "fault" in on.on.kinds(),
        "a fault",
        show=lambda: on.on.events,
    )
    await asyncio.sleep(1.0)
    await on.all_on("ai")
    back_s = on.on.viewer.clock.now_s()
    await asyncio.sleep(1.0)
    for viewer in on.viewers:
        viewer.assert_unbroken()
    faults = [e for e in on.on.events if e["event"] == "fault"]
    assert any(e["reason"].startswith(kind) for e in faults), faults
    assert not [e for e in on.on.events if "quarantined" in str(e)]
    at, after = seen(on.viewers, at_s, 1.0), seen(on.viewers, at_s + 1.0, back_s - at_s)
    found = judged(worst_ms(at), longest_ms, before_ms, "at the fault")
    found += judged(worst_ms(after), 250.0, before_ms, "on the way back")
    if (missing := max(lost(window) for window in at)) > 1:
        found.append(f"{missing} lost at the fault")
    # A machine that starts a worker and three lanes at once may hang for a moment elsewhere too.
    found += [e["reason"] for e in faults if not e["reason"].startswith(kind)]
    if back_s - at_s > 10.0:
        found.append(f"back after {back_s - at_s:.1f} s")
    return found


async def test_a_killed_worker_costs_a_moment_and_the_other_takes_over(
    two: tuple[Worker, Worker],
) -> None:
    async def run() -> list[str]:
        for worker in two:
            if worker.process is None or worker.process.poll() is not None:
                worker.start()
                worker.wait_ready()
        async with three(*two) as on:
            # All three on one: the other gets no lane until that is gone.
            victim = max(two, key=lambda w: on.lanes[w.address])
            found = await fault_and_return(on, victim.kill, 1000.0, "lost")
            assert on.lanes[victim.address] == 0
            assert sum(on.lanes.values()) == 3
            assert on.counted("backend_faults_total", kind="lost", backend="ai") >= 1
            return found

    await in_time(run)


async def test_a_hung_worker_is_left_within_half_a_second(two: tuple[Worker, Worker]) -> None:
    async def run() -> list[str]:
        async with three(*two) as on:
            victim = max(two, key=lambda w: on.lanes[w.address])
            try:
                found = await fault_and_return(on, lambda: victim.send(signal.SIGSTOP), 1200.0, "")
                await until(lambda: on.state_of(victim) == "unavailable", "it to be given up")
                assert sum(on.lanes.values()) == 3
            finally:
                victim.send(signal.SIGCONT)
            await until(lambda: on.state_of(victim) == "ready", "it to be back", timeout_s=10)
            return found

    await in_time(run)


async def test_a_draining_worker_loses_its_streams_to_the_other_unseen(
    two: tuple[Worker, Worker],
) -> None:
    async def run() -> list[str]:
        for worker in two:
            if worker.process is None or worker.process.poll() is not None:
                worker.start()
                worker.wait_ready()
        async with three(*two, streams=2) as on:
            before_ms = await control(on, 2.0)
            victim = max(two, key=lambda w: on.lanes[w.address])
            at_s = on.on.viewer.clock.now_s()
            victim.send(signal.SIGTERM)
            process = victim.process
            assert process is not None
            await until(lambda: process.poll() is not None, "it to end", timeout_s=25)
            assert process.returncode == 0
            await on.all_on("ai")
            assert "fault" not in on.on.kinds()
            assert not any(s.degraded for s in on.on.service.parts.router.streams())
            windows = seen(on.viewers, at_s, on.on.viewer.clock.now_s() - at_s)
            found = judged(worst_ms(windows), 300.0, before_ms, "while it drained")
            if any(lost(window) for window in windows):
                found.append(f"{[lost(window) for window in windows]} lost")
            return found

    await in_time(run)


async def test_without_another_worker_a_drain_falls_back_and_counts_no_fault(one: Worker) -> None:
    async with three(one, streams=2) as on:
        one.send(signal.SIGTERM)
        process = one.process
        assert process is not None
        await until(lambda: process.poll() is not None, "it to end", timeout_s=25)
        assert process.returncode == 0
        await on.all_on("bicubic")
        assert on.counted("backend_faults_total", kind="lost", backend="ai") == 0
        for viewer in on.viewers:
            await viewer.more(5)
            viewer.assert_unbroken()


async def test_a_partition_is_left_at_once_and_healed_by_itself(one: Worker) -> None:
    where = one.machine
    assert where is not None

    async def run() -> list[str]:
        async with three(one, streams=1) as on:
            before_ms = await control(on, 2.0)
            at_s = on.on.viewer.clock.now_s()
            where.down()
            try:
                await on.all_on("bicubic")
                left_s = on.on.viewer.clock.now_s()
                await asyncio.sleep(6.0)
                # The worker noticed, too: nobody holds its slots for ever.
                assert on.info.state == "unavailable"
            finally:
                where.up()
            await until(lambda: on.info.state == "ready", "the link", timeout_s=15)
            assert on.info.slots.used == 0
            await on.all_on("ai", timeout_s=40)
            on.on.viewer.assert_unbroken()
            windows = seen(on.viewers, at_s, left_s + 1.0 - at_s)
            return judged(worst_ms(windows), 1200.0, before_ms, "at the partition")

    await in_time(run)


async def test_a_slow_link_makes_no_picture_late_and_is_left(one: Worker) -> None:
    where = one.machine
    assert where is not None

    async def run() -> list[str]:
        async with three(one, streams=1) as on:
            before_ms = await control(on, 2.0)
            memory = _rss_mb(os.getpid())
            at_s = on.on.viewer.clock.now_s()
            where.slow("400kbit")
            try:
                await asyncio.sleep(10.0)
            finally:
                where.fast()
            grown = _rss_mb(os.getpid()) - memory
            await on.all_on("ai", timeout_s=40)
            on.on.viewer.assert_unbroken()
            (window,) = seen(on.viewers, at_s, 10.0)
            late = [s.latency_ms for s in window if s.latency_ms is not None]
            found = []
            if max(late) > 1600 + before_ms:
                found.append(f"a picture {max(late):.0f} ms late")
            if grown > 40:
                found.append(f"{grown:.0f} MB more memory")
            stream = await on.on.service.stream()
            left = "fault" in on.on.kinds() or stream["frames"]["dropped"].get("link_busy")
            assert left, (on.on.events, stream["frames"])
            return found

    await in_time(run)


async def test_a_worker_frees_the_slots_of_an_anchor_that_was_killed(
    one: Worker, tmp_path: Path
) -> None:
    """Its own processes are gone with it; the worker elsewhere hears of it."""

    from tests.serving import Served

    from streamlift.cluster.trust import Trust

    del Served, Trust
    port = _free_port()
    tree: dict[str, Any] = {
        "server": {"port": port},
        "default_backend": "own",
        "backends": [
            {"name": "own", "upscaler": "bicubic", "link": "process"},
            {"name": "ai", "upscaler": "bicubic", "link": "remote"},
        ],
        "cluster": {
            "token": cluster_of(one).token,
            "workers": [{"backend": "ai", "address": one.address, "fingerprint": one.fingerprint}],
        },
    }
    config = tmp_path / "anchor.yaml"
    config.write_text(yaml.safe_dump(tree))
    command = bound(sys.executable, "-m", "streamlift.cli", "serve", "--config", str(config))
    anchor = await asyncio.create_subprocess_exec(*command)
    url = f"http://127.0.0.1:{port}"
    look = link_to(
        WorkerAddress("ai", one.address, one.fingerprint),
        Config(cluster=cluster_of(one)),
        MonotonicClock(),
        Metrics(),
    )
    looking = asyncio.create_task(look.run())
    try:
        await asyncio.to_thread(
            wait_for, lambda: "own" not in read(f"{url}/readyz")["backends"], 30
        )
        (child,) = _children_of(anchor.pid)
        done = False
        with contextlib.suppress(httpx.HTTPError):  # the peers' farewell reaches nobody
            async with sending(f"{url}/whip/live"), viewing(f"{url}/whep/live") as viewer:
                await viewer.more(5)
                async with _client(url) as http:
                    moved = await http.put("/api/v1/streams/live/backend", json={"backend": "ai"})
                    assert moved.status_code == 202, moved.text
                await until(lambda: look.info().slots.used == 1, "its slot to be taken")
                anchor.kill()
                await until(lambda: not _alive(child), "its process to be gone", timeout_s=3)
                await until(lambda: look.info().slots.used == 0, "its slot to be free")
                done = True
        assert done
    finally:
        looking.cancel()
        await asyncio.wait([looking])
        await look.aclose()
        if anchor.returncode is None:
            anchor.kill()
        await anchor.wait()


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, trust_env=False, timeout=10)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
