"""A backend on a worker, held against one in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.waiting import until

pytest.importorskip("grpc", reason="needs the extra cluster")

from tests.cluster.served import CLOCK, Reader, coded_frames, wanted
from tests.engine.frames import H264, SMALL
from tests.routing.fakes import FakePublisher
from tests.routing.stage import Seen

from streamlift.engine import EngineBackend
from streamlift.metrics import Metrics
from streamlift.routing.backends import BackendTable
from streamlift.routing.settings import StreamSettings
from streamlift.routing.stream import Stream

Worker = Callable[..., Any]
FRAMES = 60


async def test_a_lane_on_a_worker_gives_way_there_too(worker: Worker) -> None:
    served = await worker()
    backend = await served.linked()
    lane = await backend.open_lane(SMALL, wanted(guest=True))
    reader = Reader(lane)
    assert [one.guest for one in served.backend._lanes] == [True]
    lane.finish()
    assert await reader.ended() is None
    await lane.aclose()
    await backend.aclose()


async def test_a_workers_picture_goes_out_with_the_shown_one(worker: Worker) -> None:
    served = await worker()
    remote = await served.linked()
    local = EngineBackend(
        "own", "toy", slots=4, settings={}, preset="ultrafast", max_age_s=5.0, clock=CLOCK
    )
    await local.start()
    table = BackendTable([local, remote], clock=CLOCK)
    stream = Stream(
        "cam", table, "own", clock=CLOCK, metrics=Metrics(), settings=StreamSettings(H264)
    )
    owner, publisher = asyncio.ensure_future(stream.run()), FakePublisher()
    publishing = asyncio.ensure_future(stream.publish(publisher))
    await asyncio.sleep(0)
    seen = Seen(stream.watch())
    frames = coded_frames(FRAMES)
    publisher.push(frames[0])
    await until(lambda: len(seen.frames) > 0, "the first picture")
    comparison = await stream.comparisons.join("ai")
    other = Seen(comparison.watch())
    for frame in frames[1:]:
        publisher.push(frame)
        await asyncio.sleep(0.02)
    await until(lambda: len(other.frames) > FRAMES // 3, "pictures of the worker")
    assert set(other.pts) <= set(seen.pts)
    assert served.backend.info().slots.used == 1
    stream.comparisons.leave(comparison)
    await until(lambda: served.backend.info().slots.used == 0, "the slot to be free")
    assert other.cursor.closed
    publisher.end()
    await asyncio.wait([publishing])
    await stream.close("test over")
    await asyncio.wait([owner, seen.task, other.task], timeout=10)
    await local.aclose()
    await remote.aclose()
