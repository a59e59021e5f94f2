"""The table of streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.routing.fakes import H264, FakeBackend, FakePublisher, stream_frames
from tests.routing.virtual_time import LoopClock, ended, in_virtual_time, settle, until

from streamlift.errors import NoCapacity, NotReady, UnknownStream
from streamlift.frames import BackendState
from streamlift.metrics import Metrics
from streamlift.routing.router import Router
from streamlift.routing.settings import StreamSettings


@asynccontextmanager
async def routing(
    slots: int = 4,
) -> AsyncIterator[tuple[Router, FakeBackend, LoopClock]]:
    clock = LoopClock()
    backend = FakeBackend(clock, slots=slots)
    async with asyncio.TaskGroup() as tasks:
        router = Router(
            {backend.name: backend},
            backend.name,
            clock=clock,
            metrics=Metrics(),
            tasks=tasks,
            settings=StreamSettings(H264),
        )
        yield router, backend, clock
        await router.aclose()


@in_virtual_time
async def test_a_stream_exists_from_its_first_publisher_on() -> None:
    async with routing() as (router, _, clock):
        with pytest.raises(UnknownStream):
            router.watch("cam")
        publisher = FakePublisher()
        done = asyncio.ensure_future(router.publish("cam", publisher))
        await stream_frames(publisher, clock, 3)
        assert [s.name for s in router.streams()] == ["cam"]
        router.watch("cam").close()
        publisher.end()
        await ended(done)
        await asyncio.sleep(61.0)
        assert router.streams() == ()


@in_virtual_time
async def test_closing_a_stream_frees_its_name() -> None:
    async with routing() as (router, backend, clock):
        publisher = FakePublisher()
        done = asyncio.ensure_future(router.publish("cam", publisher))
        await stream_frames(publisher, clock, 3)
        await ended(router.close("cam"))
        await ended(done)
        assert router.streams() == ()
        assert backend.used == 0
        with pytest.raises(UnknownStream):
            await router.close("cam")


@in_virtual_time
async def test_one_stream_too_many_is_refused_and_the_others_go_on() -> None:
    async with routing(slots=1) as (router, backend, clock):
        first, second = FakePublisher(), FakePublisher()
        done = asyncio.ensure_future(router.publish("first", first))
        await stream_frames(first, clock, 3)
        with pytest.raises(NoCapacity):
            router.admit("second")
        refused = asyncio.ensure_future(router.publish("second", second))
        await stream_frames(second, clock, 3)
        with pytest.raises(NoCapacity):
            await refused
        await stream_frames(first, clock, 3, first_pts=90_000)
        await until(lambda: backend.lanes[0].delivered == 6)
        first.end()
        await ended(done)


@in_virtual_time
async def test_a_backend_that_is_not_ready_admits_nobody() -> None:
    async with routing() as (router, backend, _):
        backend.state, backend.reason = BackendState.LOADING, "reading weights"
        with pytest.raises(NotReady, match="reading weights"):
            router.admit("cam")


@in_virtual_time
async def test_a_broken_publisher_harms_no_other_stream() -> None:
    async with routing() as (router, backend, clock):
        good, bad = FakePublisher(), FakePublisher()
        good_done = asyncio.ensure_future(router.publish("good", good))
        bad_done = asyncio.ensure_future(router.publish("bad", bad))
        await stream_frames(good, clock, 3)
        bad.fail(ValueError("broken"))
        with pytest.raises(ValueError, match="broken"):
            await bad_done
        await stream_frames(good, clock, 3, first_pts=90_000)
        await until(lambda: backend.lanes[0].delivered == 6)
        good.end()
        await ended(good_done)


@in_virtual_time
async def test_shutting_down_ends_everything_and_takes_nothing_new() -> None:
    async with routing() as (router, backend, clock):
        publishers = [FakePublisher() for _ in range(3)]
        done = [
            asyncio.ensure_future(router.publish(f"cam{n}", p)) for n, p in enumerate(publishers)
        ]
        for publisher in publishers:
            await stream_frames(publisher, clock, 2)
        await ended(router.aclose())
        await settle()
        assert all(task.done() for task in done)
        assert backend.used == 0
        with pytest.raises(NotReady):
            await router.publish("late", FakePublisher())
