"""A failing lane is replaced by one on the fallback backend, and tried again."""

from __future__ import annotations

import asyncio

import pytest
from tests.routing.fakes import FakePublisher, Knobs, stream_frames
from tests.routing.stage import BASIC, CHUNKED, Stage, live
from tests.routing.virtual_time import ended, in_virtual_time, settle

from streamlift.errors import NoCapacity, OutOfMemory, UpscaleError
from streamlift.frames import BackendState
from streamlift.routing.events import EventKind
from streamlift.routing.states import StreamState

FRAME = 3600


def whole(stage: Stage) -> bool:
    """Whether the viewer has seen every frame once and could decode it."""
    stage.viewer.assert_decodable()
    return stage.viewer.pts == [n * FRAME for n in range(len(stage.viewer.pts))]


def quarantined(stage: Stage) -> bool:
    return stage.table.faults("ai").quarantined


@in_virtual_time
async def test_a_raising_lane_is_replaced_within_two_frames_and_nothing_is_lost() -> None:
    failing = Knobs(fail_at=100, error=UpscaleError("NaN in the output"))
    async with live("ai", "bicubic", knobs=failing) as stage:
        stage.backends["ai"].knobs = Knobs()
        await asyncio.sleep(2.8)
        told = stage.stream.snapshot()
        assert (told.backend, told.degraded) == ("bicubic", True)
        assert "NaN in the output" in told.reason
        assert whole(stage)
        assert max(stage.viewer.gaps()) < 0.08
        assert stage.metrics.value("backend_faults_total", kind="raise", backend="ai") == 1
        (fault,) = stage.log(EventKind.FAULT)
        assert (fault.before, fault.after) == ("ai", "bicubic")


@in_virtual_time
async def test_only_a_lane_that_replaces_a_failed_one_stands_in() -> None:
    async with live("ai", "bicubic", knobs=Knobs(fail_at=100)) as stage:
        stage.backends["ai"].knobs = Knobs()
        await asyncio.sleep(6.0)
        stands_in = {
            name: [lane.options.stands_in for lane in backend.lanes]
            for name, backend in stage.backends.items()
        }
        assert stands_in == {"ai": [False, False], "bicubic": [True]}


@in_virtual_time
async def test_the_failed_backend_comes_back_by_itself() -> None:
    async with live("ai", "bicubic", knobs=Knobs(fail_at=100)) as stage:
        stage.backends["ai"].knobs = Knobs()
        await asyncio.sleep(6.0)
        told = stage.stream.snapshot()
        assert (told.backend, told.degraded, told.state) == ("ai", False, StreamState.LIVE)
        assert whole(stage)
        assert stage.kinds().count(EventKind.SWITCHED) == 2
        assert stage.backends["bicubic"].used == 0


@in_virtual_time
async def test_a_failing_chunked_lane_loses_nothing_it_owed() -> None:
    knobs = Knobs(delay_s=0.15, first=1, step=8, lag=4, fail_at=101)
    async with live("ai", "bicubic", knobs=knobs) as stage:
        stage.backends["ai"].state = BackendState.UNAVAILABLE
        await asyncio.sleep(6.0)
        assert stage.viewer.sources[-1] == "bicubic"
        assert whole(stage)
        assert max(stage.viewer.gaps(1.0)) < 0.12


@pytest.mark.parametrize(
    ("knobs", "longest_gap_s"),
    [
        (Knobs(hang_at=100), 0.5),
        (Knobs(delay_s=0.15, first=1, step=8, lag=4, hang_at=101), 0.8),
    ],
)
@in_virtual_time
async def test_a_hung_lane_is_replaced_in_time(knobs: Knobs, longest_gap_s: float) -> None:
    async with live("ai", "bicubic", knobs=knobs) as stage:
        stage.backends["ai"].state = BackendState.UNAVAILABLE
        await asyncio.sleep(6.0)
        assert stage.viewer.sources[-1] == "bicubic"
        assert whole(stage)
        assert max(stage.viewer.gaps(1.0)) < longest_gap_s
        assert stage.metrics.value("backend_faults_total", kind="hang", backend="ai") == 1
        assert stage.backends["ai"].used == 0
        ((_, _, gaps),) = [h for h in stage.metrics.histograms() if h[0] == "failover_gap_seconds"]
        assert gaps.count == 1


@in_virtual_time
async def test_a_publisher_that_pauses_is_no_fault_of_the_lane() -> None:
    async with live("ai", "bicubic", seconds=2.5, knobs=CHUNKED) as stage:
        await asyncio.sleep(10.0)
        assert stage.log(EventKind.FAULT) == []


@in_virtual_time
async def test_out_of_memory_is_counted_as_such() -> None:
    failing = Knobs(fail_at=100, error=OutOfMemory("device memory is full"))
    async with live("ai", "bicubic", knobs=failing) as stage:
        await asyncio.sleep(3.0)
        assert stage.metrics.value("backend_faults_total", kind="oom", backend="ai") == 1


@in_virtual_time
async def test_three_faults_in_a_minute_quarantine_the_backend() -> None:
    async with live("ai", "bicubic", knobs=Knobs(fail_at=30), seconds=90) as stage:
        await asyncio.sleep(20.0)
        assert quarantined(stage)
        assert stage.metrics.value("backend_faults_total", kind="raise", backend="ai") == 3
        assert stage.stream.snapshot().backend == "bicubic"
        assert whole(stage)
        stage.backends["ai"].knobs = Knobs()
        await asyncio.sleep(35.0)
        assert not quarantined(stage)
        assert stage.stream.snapshot().backend == "ai"
        assert whole(stage)


@in_virtual_time
async def test_what_one_streams_pictures_provoke_takes_the_backend_from_nobody_else() -> None:
    async with live("ai", "bicubic", knobs=Knobs(fail_at=30), seconds=90) as stage:
        stage.backends["ai"].to_blame = False
        await asyncio.sleep(20.0)
        assert stage.metrics.value("backend_faults_total", kind="raise", backend="ai") == 3
        assert stage.backends["ai"].probed == 1
        assert not quarantined(stage)
        told = stage.stream.snapshot()
        assert (told.backend, told.degraded) == ("bicubic", True)
        states = {info.name: info.state for info in stage.table.infos()}
        assert states == {"ai": BackendState.READY, "bicubic": BackendState.READY}
        assert stage.table.info("ai", stage.stream.name).state is BackendState.QUARANTINED
        assert stage.table.usable("ai", "another")
        assert whole(stage)


@in_virtual_time
async def test_a_backend_that_is_still_loading_is_replaced_until_it_is_ready() -> None:
    stage_knobs = Knobs()
    async with live("bicubic", "ai", knobs=stage_knobs) as stage:
        stage.backends["ai"].state = BackendState.LOADING
        stage.stream.switch("ai")
        await asyncio.sleep(1.0)
        (aborted,) = stage.log(EventKind.SWITCH_ABORTED)
        assert "loading" in aborted.reason
        assert stage.backends["bicubic"].used == 1


@in_virtual_time
async def test_a_stream_begins_on_the_fallback_while_its_backend_is_loading() -> None:
    stage = Stage(("ai", "bicubic"), BASIC)
    ai = stage.backends["ai"]
    ai.state, ai.reason = BackendState.LOADING, "reading weights"
    owner = asyncio.ensure_future(stage.stream.run())
    await settle()
    viewer = stage.watch()
    done = asyncio.ensure_future(stage.stream.publish(stage.publisher))
    await stream_frames(stage.publisher, stage.clock, 25)
    told = stage.stream.snapshot()
    assert (told.backend, told.degraded) == ("bicubic", True)
    assert told.reason == "ai is loading: reading weights"
    ai.state = BackendState.READY
    await stream_frames(stage.publisher, stage.clock, 50, first_pts=91_000)
    told = stage.stream.snapshot()
    assert (told.backend, told.degraded, told.reason) == ("ai", False, "trying again")
    viewer.assert_decodable()
    stage.publisher.end()
    await ended(done)
    await stage.stream.close("test over")
    await ended(owner)
    await ended(viewer.task)


@in_virtual_time
async def test_the_fallback_itself_may_fail_and_is_opened_again() -> None:
    async with live("bicubic", knobs=Knobs(fail_at=100)) as stage:
        stage.backends["bicubic"].knobs = Knobs()
        await asyncio.sleep(6.0)
        assert stage.viewer.times_s[-1] > 7.5
        stage.viewer.assert_decodable()
        assert stage.stream.state is StreamState.LIVE


@in_virtual_time
async def test_a_failure_during_a_switch_falls_back_and_then_goes_where_asked() -> None:
    async with live("a", "b", "bicubic", knobs=Knobs(fail_at=53)) as stage:
        stage.backends["b"].knobs = CHUNKED
        stage.stream.switch("b")
        await asyncio.sleep(12.0)
        assert stage.viewer.sources[-1] == "b"
        assert whole(stage)
        assert max(stage.viewer.gaps(1.0)) < 0.12
        assert not stage.stream.snapshot().degraded


@in_virtual_time
async def test_a_switch_to_a_full_backend_keeps_the_old_one() -> None:
    async with live("a", "b", "bicubic") as stage:
        stage.backends["b"].total = 0
        stage.stream.switch("b")
        await asyncio.sleep(1.0)
        assert stage.stream.snapshot().backend == "a"
        assert stage.log(EventKind.SWITCH_ABORTED)[0].reason == str(
            NoCapacity("all 0 slots of b are taken")
        )
        assert stage.log(EventKind.FAULT) == []


@in_virtual_time
async def test_a_lane_that_fails_while_the_publisher_leaves_is_no_switch() -> None:
    async with live("ai", "bicubic", seconds=2.0) as stage:
        stage.backends["ai"].knobs = Knobs(opening_s=0.5, fail_at=0)
        second = FakePublisher()
        done = asyncio.ensure_future(stage.stream.publish(second))
        await stream_frames(second, stage.clock, 5, first_pts=500_000)
        second.end()
        await ended(done)
        await asyncio.sleep(2.0)
        assert stage.stream.snapshot().state is StreamState.WAITING
        assert stage.log(EventKind.SWITCH_ABORTED) == []
        assert [backend.used for backend in stage.backends.values()] == [0, 0]
        third = FakePublisher()
        stage.backends["ai"].knobs = Knobs()
        done = asyncio.ensure_future(stage.stream.publish(third))
        await stream_frames(third, stage.clock, 25)
        assert stage.stream.snapshot().state is StreamState.LIVE
        third.end()
        await ended(done)


@in_virtual_time
async def test_a_frame_that_the_failed_lane_dropped_and_the_next_one_showed_is_no_drop() -> None:
    lost = frozenset({40, 98, 99})
    async with live("ai", "bicubic", knobs=Knobs(fail_at=100, lose=lost)) as stage:
        stage.backends["ai"].state = BackendState.UNAVAILABLE
        await asyncio.sleep(4.0)
        assert [pts // FRAME for pts in stage.viewer.pts[:110]] == [
            n for n in range(111) if n != 40
        ]
        assert stage.stream.snapshot().frames.dropped == {"stale": 1}
