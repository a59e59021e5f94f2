"""A link that breaks at an unlucky moment, or as nobody foresaw, harms no stream for good."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.clips import TICKS
from tests.waiting import until

pytest.importorskip("grpc", reason="needs the extra cluster")

from tests.cluster.served import CLOCK, Reader, coded_frames, wanted
from tests.engine.frames import SMALL

from streamlift.clock import ManualClock
from streamlift.cluster import link as link_module
from streamlift.cluster.link import Link
from streamlift.cluster.trust import Trust
from streamlift.cluster.wire import worker_pb2 as pb
from streamlift.errors import MediaError, NotReady, StreamliftError, WorkerLost
from streamlift.frames import BackendState
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


@pytest.mark.parametrize(
    ("error", "strikes"), [(MediaError("of odd size"), 0), (WorkerLost("gone"), 1)]
)
async def test_what_a_publisher_sends_is_not_charged_to_the_worker(
    worker: Worker, error: StreamliftError, strikes: int
) -> None:
    served = await worker("bicubic")
    link = served.link()
    backend = await served.linked(link)
    lane = await backend.open_lane(SMALL, wanted())
    lane.end(error)
    assert not link.lanes
    assert link.strikes.recent(CLOCK.now_s()) == strikes
    await backend.aclose()


async def test_a_publisher_that_makes_no_keyframe_keeps_its_lane(worker: Worker) -> None:
    served = await worker("bicubic")
    backend = await served.linked()
    clock = ManualClock()
    asked: list[float] = []
    lane = await backend.open_lane(SMALL, wanted(ask_source=lambda: asked.append(clock.now_s())))
    lane._clock = clock
    delta = coded_frames(2)[1]
    assert delta.coded is not None
    for number in range(1, 301):
        clock.advance(0.04)
        coded = dataclasses.replace(delta.coded, number=number)
        lane.offer(dataclasses.replace(delta, pts=number * TICKS, coded=coded))
        lane._way.clear()  # it has arrived
        lane._waiting.clear()
    assert not lane.over
    assert served.metrics.value("lane_input_total", kind="picture") == 300
    assert 10 <= len(asked) <= 14
    await backend.aclose()


@pytest.mark.parametrize("state", ["", "resting"])
async def test_a_state_that_is_not_known_is_none_to_use(worker: Worker, state: str) -> None:
    served = await worker("bicubic")
    link = served.link()
    backend = await served.linked(link)
    await until(lambda: link.state == "ready", "it to be attached", show=link.info)
    link._hear(pb.FromWorker(status=pb.Status(state=state, slots_total=4)))
    info = backend.info()
    assert info.state is BackendState.UNAVAILABLE
    assert info.workers[0].state == "unavailable"
    assert f"its state is not known here: {state!r}" in info.reason
    with pytest.raises(NotReady):
        await backend.open_lane(SMALL, wanted())
    await backend.aclose()
