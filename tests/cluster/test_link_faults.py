"""A link that breaks at an unlucky moment, or as nobody foresaw, harms no stream for good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

pytest.importorskip("grpc", reason="needs the extra cluster")

from tests.cluster.served import CLOCK, Reader, wanted
from tests.engine.frames import SMALL

from streamlift.cluster import link as link_module
from streamlift.cluster.link import Link
from streamlift.cluster.trust import Trust
from streamlift.errors import WorkerLost
from streamlift.metrics import Metrics

Worker = Callable[..., Any]


async def never(*_: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("method", ["open_lane", "probe"])
async def test_who_waits_for_a_worker_hears_when_the_link_breaks(
    worker: Worker, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await worker("bicubic")
    link = served.link()
    backend = await served.linked(link)
    monkeypatch.setattr(served.backend, method, never)
    asks = link.open_lane(SMALL, wanted()) if method == "open_lane" else link.probe()
    asking = asyncio.create_task(asks)
    await asyncio.sleep(0.1)
    assert not asking.done()
    await link._detach()  # as it does when the worker is silent
    await asyncio.wait([asking], timeout=5)
    assert asking.done()
    assert not asking.cancelled()
    assert isinstance(asking.exception(), WorkerLost)
    await backend.aclose()


@pytest.mark.parametrize("method", ["open_lane", "probe"])
async def test_who_gives_up_waiting_is_cancelled_as_ever(
    worker: Worker, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await worker("bicubic")
    link = served.link()
    backend = await served.linked(link)
    monkeypatch.setattr(served.backend, method, never)
    asks = link.open_lane(SMALL, wanted()) if method == "open_lane" else link.probe()
    asking = asyncio.create_task(asks)
    await asyncio.sleep(0.1)
    asking.cancel()
    await asyncio.wait([asking], timeout=5)
    assert asking.cancelled()
    await backend.aclose()


async def test_a_fault_that_nobody_foresaw_ends_the_lanes_and_the_worker_is_dialled_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "REDIAL_S", 0.01)
    served = await worker("bicubic")
    link = served.link()
    backend = await served.linked(link)
    reader = Reader(await backend.open_lane(SMALL, wanted()))
    hear = link._hear
    monkeypatch.setattr(link, "_hear", lambda message: hear(None))
    error = await reader.ended()
    assert isinstance(error, WorkerLost)
    assert "the link failed" in str(error)
    monkeypatch.setattr(link, "_hear", hear)
    await until(lambda: link.state == "ready", "it to be attached again", show=link.info)
    await backend.aclose()


@pytest.mark.parametrize("lacking", ["tls_ca", "tls_cert"])
async def test_a_certificate_that_cannot_be_read_is_tried_again(
    tmp_path: Path, lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "REDIAL_S", 0.01)
    here, absent = tmp_path / "here.pem", tmp_path / "absent.pem"
    here.touch()
    files = {"tls_ca": str(here), "tls_cert": str(here), "tls_key": str(here)}
    dials: list[int] = []

    async def count_dial() -> None:
        dials.append(1)

    link = Link(
        "w",
        "127.0.0.1:9",
        Trust("token", **(files | {lacking: str(absent)})),
        backend="ai",
        anchor="tests",
        units=True,
        clock=CLOCK,
        metrics=Metrics(),
        ready_to_dial=count_dial,
    )
    running = asyncio.create_task(link.run())
    await until(lambda: len(dials) >= 2 or running.done(), "a second try")
    assert not running.done()
    assert link.info().reason == f"{absent} cannot be read: No such file or directory"
    running.cancel()
    await asyncio.wait([running])
