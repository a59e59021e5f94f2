"""A worker that cannot be started, or that talks too much, is not given up; no process is run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.waiting import until

pytest.importorskip("grpc", reason="needs the extra cluster")

from streamlift.cluster import child as child_module
from streamlift.cluster.child import Child


class FakeLink:
    """Remembers what was said of the worker."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, reason: str) -> None:
        self.said.append(reason)


async def test_a_process_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts: list[int] = []

    async def no_memory(*_: object, **__: object) -> None:
        starts.append(1)
        raise OSError(12, "Cannot allocate memory") if len(starts) % 2 else RuntimeError("thread")

    monkeypatch.setattr(child_module, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(child_module, "LONGEST_WAIT_S", 0.01)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_memory)
    link: Any = FakeLink()
    child = Child("w", {}, lambda child, address: link)
    running = asyncio.create_task(child.run())
    await until(lambda: len(starts) >= 3 or running.done(), "a third try")
    assert not running.done()
    assert link.said[0].startswith("cannot be started: [Errno 12] Cannot allocate memory; started")
    assert link.said[1].startswith("cannot be started: thread; started")
    assert child.restarts["exit"] >= 2
    running.cancel()
    await asyncio.wait([running])
    await child.aclose()


async def test_a_line_longer_than_any_of_ours_is_passed_over() -> None:
    link: Any = FakeLink()
    child = Child("w", {}, lambda child, address: link)
    stdout = asyncio.StreamReader(limit=64)
    process: Any = type("Process", (), {"stdout": stdout})()
    reading = asyncio.create_task(child._read_state(process))
    stdout.feed_data(b"x" * 1000 + b"\n")
    await asyncio.sleep(0)
    stdout.feed_data(b"listening unix:socket\n")
    stdout.feed_eof()
    await reading
    async with asyncio.timeout(1):
        await child.listens()
    await child.aclose()
