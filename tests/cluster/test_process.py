"""Backends in processes of this machine: what viewers and the API see when one ends or hangs."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import stat
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.machine import in_time
from tests.serving import light, serving
from tests.staged import Stage, late, stage, too_long
from tests.waiting import until

pytest.importorskip("grpc", reason="needs the extra cluster")

from streamlift.config import BackendConfig

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(sys.platform == "win32", reason="link: process needs a POSIX system"),
]

PLAIN = BackendConfig("bicubic", "bicubic", slots=8)


def apart(upscaler: str = "bicubic", **knobs: Any) -> BackendConfig:
    return BackendConfig("ai", upscaler, slots=4, link="process", settings=knobs)


@asynccontextmanager
async def on_a_process(upscaler: str = "bicubic", **knobs: Any) -> AsyncIterator[Stage]:
    async with stage(apart(upscaler, **knobs), PLAIN) as on:
        await on.settled("ai")
        yield on


def child_of(on: Stage) -> Any:
    backend: Any = on.service.parts.router.table["ai"]
    (child,) = backend._children
    return child


async def backend_of(on: Stage) -> Any:
    listed = (await on.http.get("/api/v1/backends")).json()["backends"]
    return next(b for b in listed if b["name"] == "ai")


async def test_a_crash_ends_the_process_and_not_the_service() -> None:
    async def run() -> list[str]:
        async with on_a_process() as on:
            began_s, pid = on.viewer.clock.now_s(), child_of(on).pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda: "fault" in on.kinds(), "the fault")
            fault = next(e for e in on.events if e["event"] == "fault")
            assert fault["reason"] == "exit: killed by SIGKILL"
            (worker,) = (await backend_of(on))["workers"]
            assert "killed by SIGKILL" in worker["reason"] or worker["state"] == "loading"
            await on.settled("bicubic")
            await on.settled("ai")
            assert child_of(on).pid not in (None, pid)
            (worker,) = (await backend_of(on))["workers"]
            assert (worker["state"], worker["restarts"]) == ("ready", 1)
            counted = on.service.parts.metrics.value
            assert counted("backend_faults_total", kind="exit", backend="ai") == 1
            await on.viewer.more(10)
            on.viewer.assert_unbroken()
            return await late(on, on.viewer.since(began_s))

    await in_time(run)


async def test_a_model_that_hangs_ends_its_process_with_exit_70() -> None:
    # Past what the capacity probe takes.
    async with on_a_process("toy", hang_at=100, hang_s=60.0) as on:
        await until(lambda: "fault" in on.kinds(), "the fault", timeout_s=20)
        child = child_of(on)
        await until(lambda: child.restarts["hang"] == 1, "its end", timeout_s=10)
        await on.settled("bicubic")
        await on.viewer.more(10)
        on.viewer.assert_unbroken()


async def test_a_process_that_does_not_answer_is_killed_and_started_again() -> None:
    async def run() -> list[str]:
        async with on_a_process() as on:
            began_s, pid = on.viewer.clock.now_s(), child_of(on).pid
            os.kill(pid, signal.SIGSTOP)
            await on.settled("bicubic")
            found = too_long(on.viewer.since(began_s), 1200.0)
            await until(lambda: child_of(on).pid not in (None, pid), "another", timeout_s=15)
            assert not _runs(pid)
            await on.settled("ai")
            on.viewer.assert_unbroken()
            return found

    await in_time(run)


async def test_a_process_goes_with_the_service_and_leaves_nothing() -> None:
    async with on_a_process() as on:
        child = child_of(on)
        pid, folder = child.pid, child._directory
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert not _runs(pid)
    assert not _is_there(folder)


async def test_a_model_that_cannot_load_says_so_and_streams_go_on() -> None:
    broken = BackendConfig("ai", "no-such-upscaler", link="process")
    async with stage(PLAIN, broken) as on:
        await until(lambda: _state(on) == "unavailable", "its state", timeout_s=15)
        assert "no-such-upscaler" in (await backend_of(on))["reason"]
        refused = await on.switch(backend="ai")
        assert refused.status_code == 409, refused.text


@pytest.mark.soak
@pytest.mark.timeout(420)
async def test_fifty_kills_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors, threads, tasks and processes are as many as before."""
    # One that dies again and again is started after 0.5, 1, 2 .. 30 s: that takes half an hour.
    monkeypatch.setattr("streamlift.cluster.child.LONGEST_WAIT_S", 0.5)
    async with on_a_process() as on:
        await asyncio.sleep(2.0)
        before = _held()
        for _ in range(50):
            child = child_of(on)
            child._exits_s.clear()  # else it would be left alone for half a minute after three
            pid = child.pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda: _state(on) != "ready", "its end")
            await until(lambda: _state(on) == "ready", "the next one", timeout_s=30)
        await asyncio.sleep(3.0)
        await on.viewer.more(10)
        on.viewer.assert_unbroken()
        after = _held()
        assert child_of(on).restarts["signal"] == 50
        grown = {key: (before[key], n) for key, n in after.items() if n > before[key] + 3}
        assert not grown


def _is_there(folder: Path) -> bool:
    return folder.exists()


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _state(on: Stage) -> str:
    backends = on.service.parts.router.table
    return str(backends["ai"].info().state)


def _held() -> dict[str, int]:
    gc.collect()
    me = Path("/proc/self")
    return {
        "descriptors": len(list((me / "fd").iterdir())),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "children": len((me / f"task/{os.getpid()}/children").read_text().split()),
    }


async def test_what_lacked_is_found_by_a_new_process_and_is_no_failure(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the model is one of torch")
    from streamlift.upscalers.realesrgan.srvgg import SRVGGConfig, SRVGGNetCompact

    file = tmp_path / "tiny.pth"
    lacking = BackendConfig("ai", "realesrgan-x2", link="process", settings={"path": str(file)})
    async with serving(light(backends=(PLAIN, lacking))) as service:
        backend: Any = service.parts.router.table["ai"]
        (child,) = backend._children
        await until(lambda: backend.info().state == "unavailable", "its state", timeout_s=30)
        assert "tiny.pth" in backend.info().reason
        pid = child.pid
        net = SRVGGNetCompact(SRVGGConfig(scale=2, convs=1, features=8))
        torch.save(net.state_dict(), file)
        await backend.start()
        await until(lambda: backend.info().state == "ready", "it to be ready", timeout_s=30)
        assert child.pid not in (None, pid)
        assert not _runs(pid)
        assert child.restarts == {}
