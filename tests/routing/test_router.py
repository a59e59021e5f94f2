"""The table of streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.routing.fakes import H264, FakeBackend, FakePublisher, Knobs, stream_frames
from tests.routing.virtual_time import LoopClock, ended, in_virtual_time, settle, until

from streamlift.errors import NoCapacity, NotReady, ShuttingDown, UnknownBackend, UnknownStream
from streamlift.frames import BackendState, Stabilise
from streamlift.metrics import Metrics
from streamlift.routing.backends import BackendTable
from streamlift.routing.events import EventKind
from streamlift.routing.policy import Policy
from streamlift.routing.router import Router
from streamlift.routing.settings import Idle, StreamSettings
from streamlift.routing.states import StreamState
from streamlift.routing.tuning import Change


@asynccontextmanager
async def routing(
    slots: int = 4,
) -> AsyncIterator[tuple[Router, FakeBackend, LoopClock]]:
    clock = LoopClock()
    backend = FakeBackend(clock, slots=slots)
    async with asyncio.TaskGroup() as tasks:
        router = Router(
            BackendTable([backend], clock=clock),
            backend.name,
            clock=clock,
            metrics=Metrics(),
            tasks=tasks,
            settings=StreamSettings(H264),
        )
        yield router, backend, clock
        await router.aclose()


def add(router: Router, backend: FakeBackend) -> None:
    """Configure a further backend."""
    router.table.add(backend)


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
async def test_while_the_default_is_not_ready_the_fallback_admits() -> None:
    clock = LoopClock()
    loading, plain = FakeBackend(clock, "ai"), FakeBackend(clock, "bicubic", slots=1)
    loading.state = BackendState.LOADING
    async with asyncio.TaskGroup() as tasks:
        router = Router(
            BackendTable([loading, plain], clock=clock),
            "ai",
            clock=clock,
            metrics=Metrics(),
            tasks=tasks,
            settings=StreamSettings(H264),
        )
        router.admit("cam")
        plain.used = 1
        with pytest.raises(NoCapacity):
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
        with pytest.raises(ShuttingDown):
            await router.publish("late", FakePublisher())


@in_virtual_time
async def test_a_switch_is_refused_with_its_reason_before_anything_moves() -> None:
    async with routing() as (router, _, clock):
        with pytest.raises(UnknownStream):
            await router.switch("cam", "other")
        publisher = FakePublisher()
        done = asyncio.ensure_future(router.publish("cam", publisher))
        await stream_frames(publisher, clock, 3)
        with pytest.raises(UnknownBackend):
            await router.switch("cam", "nonsense")
        loading, full = FakeBackend(clock, "loading"), FakeBackend(clock, "full", slots=0)
        loading.state = BackendState.LOADING
        for backend in (loading, full):
            add(router, backend)
        with pytest.raises(NotReady):
            await router.switch("cam", "loading")
        with pytest.raises(NoCapacity):
            await router.switch("cam", "full")
        assert router.stream("cam").state is StreamState.LIVE
        publisher.end()
        await ended(done)


@in_virtual_time
async def test_a_switch_returns_at_once_and_the_events_tell_the_rest() -> None:
    async with routing() as (router, _, clock):
        add(router, FakeBackend(clock, "other"))
        publisher = FakePublisher()
        done = asyncio.ensure_future(router.publish("cam", publisher))
        with router.events.subscribe("cam") as events:
            frames = asyncio.ensure_future(stream_frames(publisher, clock, 75))
            await asyncio.sleep(1.0)
            told = await router.switch("cam", "other")
            assert (told.state, told.backend, told.policy) == ("switching", "fake", "fixed")
            await frames
            await settle()
            assert router.stream("cam").snapshot().backend == "other"
            kinds = list[EventKind]()
            while not kinds or kinds[-1] is not EventKind.SWITCHED:
                kinds.append((await anext(events)).kind)
            assert EventKind.SWITCH_STARTED in kinds
        publisher.end()
        await ended(done)


@in_virtual_time
async def test_a_policy_chooses_the_best_that_holds_the_rate() -> None:
    async with routing() as (router, plain, clock):
        good, slow = FakeBackend(clock, "good"), FakeBackend(clock, "slow")
        good.upscaler, good.fps = "realesrgan-x2", 60.0
        slow.upscaler, slow.fps = "flashvsr", 20.0
        plain.fps = 500.0
        for backend in (good, slow):
            add(router, backend)
        publisher = FakePublisher()
        done = asyncio.ensure_future(router.publish("cam", publisher))
        frames = asyncio.ensure_future(stream_frames(publisher, clock, 100))
        await asyncio.sleep(1.0)
        told = await router.switch("cam", policy=Policy.AUTO)
        assert told.policy == "auto"
        await frames
        assert router.stream("cam").snapshot().backend == "good"
        publisher.end()
        await ended(done)


@in_virtual_time
async def test_sustained_overload_steps_down_and_headroom_back_up() -> None:
    async with routing() as (router, plain, clock):
        good = FakeBackend(clock, "good")
        good.upscaler, good.fps, plain.fps = "compact", 60.0, 500.0
        good.knobs = Knobs(lose_every=5)
        add(router, good)
        publisher = FakePublisher()
        done = asyncio.ensure_future(router.publish("cam", publisher))
        frames = asyncio.ensure_future(stream_frames(publisher, clock, 25 * 100))
        await asyncio.sleep(1.0)
        await router.switch("cam", policy=Policy.AUTO)
        await asyncio.sleep(8.0)
        assert router.stream("cam").snapshot().backend == "fake"
        good.knobs = Knobs()
        await frames
        assert router.stream("cam").snapshot().backend == "good"
        steps = [e for e in router.events._events if e.kind is EventKind.POLICY_STEP]
        assert [(e.before, e.after) for e in steps] == [("good", "fake"), ("fake", "good")]
        assert "good fell behind" in steps[0].reason
        assert "headroom" in steps[1].reason
        publisher.end()
        await ended(done)


@in_virtual_time
async def test_a_change_of_a_backends_state_is_told() -> None:
    async with routing() as (router, backend, clock):
        publisher = FakePublisher()
        done = asyncio.ensure_future(router.publish("cam", publisher))
        with router.events.subscribe("") as events:
            await asyncio.sleep(1.0)
            backend.state, backend.reason = BackendState.UNAVAILABLE, "device lost"
            event = await anext(events)
            assert (event.kind, event.before, event.after) == (
                EventKind.BACKEND_STATE,
                "ready",
                "unavailable",
            )
            assert event.reason == "fake: device lost"
        assert clock.now_s() < 2.0
        publisher.end()
        await ended(done)


@in_virtual_time
async def test_settings_of_a_running_stream_can_be_changed() -> None:
    async with routing() as (router, backend, clock):
        publisher = FakePublisher()
        done = asyncio.ensure_future(router.publish("cam", publisher))
        frames = asyncio.ensure_future(stream_frames(publisher, clock, 75))
        await asyncio.sleep(1.0)
        stream = router.stream("cam")
        stream.change(Change(bitrate_bps=2_000_000))
        assert {r.bitrate_bps for r in backend.lanes[0].wanted} == {2_000_000}
        stream.change(Change(stabilise=Stabilise.STRONG, idle=Idle.PAUSE))
        await frames
        await settle()
        assert [lane.options.stabilise for lane in backend.lanes] == [None, Stabilise.STRONG]
        assert backend.used == 1
        assert stream.snapshot().frames.encoded >= 74
        publisher.end()
        await ended(done)


@in_virtual_time
async def test_after_quarantine_a_backend_can_be_had_again() -> None:
    async with routing() as (router, backend, clock):
        for _ in range(3):
            for stream in ("one", "two"):
                router.table.faults(backend.name).fault(clock.now_s(), "x", stream)
            await asyncio.sleep(1.0)
        with pytest.raises(NotReady, match="quarantined"):
            router.admit("cam")
        await asyncio.sleep(31.0)
        router.admit("cam")
        assert [b.state for b in router.backends()] == [BackendState.READY]


@in_virtual_time
async def test_a_publisher_that_lasts_keeps_its_stream_without_pictures() -> None:
    async with routing() as (router, _, _):
        silent, other = FakePublisher(), FakePublisher()
        done = asyncio.ensure_future(router.publish("cam", silent, lasting=True))
        await asyncio.sleep(600.0)
        assert [s.state for s in router.streams()] == [StreamState.STARTING]
        # Whoever takes over has its own time for a first picture.
        taking = asyncio.ensure_future(router.publish("cam", other))
        await ended(done)
        await asyncio.sleep(59.0)
        assert [s.state for s in router.streams()] == [StreamState.STARTING]
        await asyncio.sleep(2.0)
        assert router.streams() == ()
        await ended(taking)


@in_virtual_time
async def test_whoever_publishes_while_a_stream_of_that_name_ends_gets_the_next_one() -> None:
    async with routing() as (router, backend, clock):
        former, publisher = FakePublisher(), FakePublisher()
        before = asyncio.ensure_future(router.publish("cam", former))
        await stream_frames(former, clock, 3)
        closing = asyncio.ensure_future(router.close("cam"))
        await settle()
        after = asyncio.ensure_future(router.publish("cam", publisher))
        await stream_frames(publisher, clock, 3)
        await ended(closing)
        await ended(before)
        await until(lambda: backend.lanes[-1].delivered == 3)
        assert [s.state for s in router.streams()] == [StreamState.LIVE]
        publisher.end()
        await ended(after)


@in_virtual_time
async def test_whoever_waits_for_a_name_while_the_service_ends_is_refused() -> None:
    async with routing() as (router, _, clock):
        former = FakePublisher()
        before = asyncio.ensure_future(router.publish("cam", former))
        await stream_frames(former, clock, 3)
        closing = asyncio.ensure_future(router.aclose())
        await settle()
        with pytest.raises(ShuttingDown, match="shutting down"):
            await router.publish("cam", FakePublisher())
        await ended(closing)
        await ended(before)
        assert router.streams() == ()
