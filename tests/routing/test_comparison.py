"""Two backends on one stream: in step, and never at the cost of the stream's own picture."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.routing.fakes import H264, FakeBackend, FakePublisher, Knobs, stream_frames
from tests.routing.stage import CHUNKED, Seen, Stage, live
from tests.routing.virtual_time import ended, in_virtual_time, settle, until

from streamlift.clock import VIDEO_CLOCK_HZ
from streamlift.errors import NoCapacity, NotReady, UnknownBackend, UpscaleError
from streamlift.frames import BackendState, Codec, Size
from streamlift.routing.comparison import Comparison
from streamlift.routing.events import EventKind
from streamlift.routing.guests import Guests, Restraint
from streamlift.routing.settings import Idle, StreamSettings
from streamlift.routing.states import StreamState
from streamlift.routing.tuning import Change


@asynccontextmanager
async def compared(stage: Stage, backend: str) -> AsyncIterator[tuple[Comparison, Seen]]:
    """A viewer that holds this backend's picture against the stream's own."""
    comparisons = stage.stream.comparisons
    comparison = await comparisons.join(backend)
    seen = Seen(comparison.watch())
    try:
        yield comparison, seen
    finally:
        seen.cursor.close()
        comparisons.leave(comparison)
        await ended(seen.task)


def times(seen: Seen) -> dict[int, float]:
    """When each picture went out, by pts."""
    return dict(zip(seen.pts, seen.times_s, strict=True))


def lags_s(seen: Seen) -> list[float]:
    """From each picture's pts to when it was seen; the constant part of it means nothing."""
    return [t - pts / VIDEO_CLOCK_HZ for pts, t in zip(seen.pts, seen.times_s, strict=True)]


@in_virtual_time
async def test_both_pictures_of_a_frame_go_out_at_the_same_moment() -> None:
    async with live("a", "b", knobs=Knobs(delay_s=0.03)) as stage:
        stage.backends["b"].knobs = Knobs(delay_s=0.005)
        async with compared(stage, "b") as (_, seen):
            await asyncio.sleep(3.0)
            own, other = times(stage.viewer), times(seen)
            assert len(other) > 60
            assert all(abs(own[pts] - at_s) < 0.001 for pts, at_s in other.items())
            assert set(seen.sources) == {"b"}
            seen.assert_decodable()


@in_virtual_time
async def test_a_slower_picture_comes_later_and_delays_nothing() -> None:
    async with live("a", "b") as stage:
        stage.backends["b"].knobs = Knobs(delay_s=0.03)
        before = max(lags_s(stage.viewer)[-25:])
        async with compared(stage, "b") as (_, seen):
            await asyncio.sleep(3.0)
            assert max(lags_s(stage.viewer)) <= before + 0.001
            own, other = times(stage.viewer), times(seen)
            assert all(0.0 < at_s - own[pts] < 0.04 for pts, at_s in other.items())
            assert stage.viewer.pts == [n * 3600 for n in range(len(stage.viewer.pts))]


@in_virtual_time
async def test_a_model_that_takes_eight_at_once_is_compared_evenly() -> None:
    async with live("a", "b") as stage:
        stage.backends["b"].knobs = CHUNKED
        async with compared(stage, "b") as (_, seen):
            await asyncio.sleep(8.0)
            assert max(seen.gaps(6.0)) < 0.12
            assert max(stage.viewer.gaps(1.0)) < 0.05


@in_virtual_time
async def test_viewers_of_one_backend_share_a_lane_and_the_last_ends_it() -> None:
    async with live("a", "b") as stage:
        async with compared(stage, "b") as (first, _):
            async with compared(stage, "b") as (second, seen):
                await asyncio.sleep(1.0)
                assert first is second
                assert len(stage.backends["b"].lanes) == 1
                assert seen.frames
                told = stage.stream.snapshot().compare
                assert [(one.backend, one.viewers, one.state) for one in told] == [("b", 2, "live")]
                assert stage.stream.viewers == 3
            await settle()
            assert stage.backends["b"].used == 1
        await settle()
        assert stage.backends["b"].used == 0
        assert stage.stream.snapshot().compare == ()
        assert stage.metrics.value("comparisons_total", backend="b", result="ended") == 1
        begun = stage.log(EventKind.COMPARE_STARTED)
        over = stage.log(EventKind.COMPARE_ENDED)
        assert [one.after for one in begun] == ["b"]
        assert [(one.before, one.reason) for one in over] == [("b", "nobody compares any more")]


@in_virtual_time
async def test_without_a_slot_nothing_is_begun() -> None:
    async with live("a", "b") as stage:
        stage.backends["b"].total = 0
        with pytest.raises(NoCapacity):
            await stage.stream.comparisons.join("b")
        assert stage.stream.snapshot().compare == ()
        assert stage.log(EventKind.COMPARE_STARTED) == []
        assert stage.stream.state is StreamState.LIVE
        assert stage.log(EventKind.FAULT) == []


@in_virtual_time
async def test_what_cannot_run_is_named() -> None:
    async with live("a", "b") as stage:
        with pytest.raises(UnknownBackend):
            await stage.stream.comparisons.join("nothing")
        stage.backends["b"].state = BackendState.UNAVAILABLE
        stage.backends["b"].reason = "no such device"
        with pytest.raises(NotReady, match="b is unavailable: no such device"):
            await stage.stream.comparisons.join("b")
        stage.backends["b"].state = BackendState.READY
        stage.table.faults("b").shared.quarantine(stage.clock.now_s(), "it broke")
        with pytest.raises(NotReady, match="quarantined: failed repeatedly: it broke"):
            await stage.stream.comparisons.join("b")


@in_virtual_time
async def test_a_fault_ends_that_view_alone_and_charges_the_stream_nothing() -> None:
    async with live("a", "b") as stage:
        stage.backends["b"].knobs = Knobs(fail_at=20, error=UpscaleError("toy failure"))
        async with compared(stage, "b") as (comparison, seen):
            await ended(seen.task)
            assert comparison.reason == "raise: toy failure"
        assert stage.stream.state is StreamState.LIVE
        assert stage.table.usable("b", "cam")
        assert [one.before for one in stage.log(EventKind.FAULT)] == ["b"]
        assert stage.metrics.value("comparisons_total", backend="b", result="failed") == 1
        assert stage.metrics.value("backend_faults_total", kind="raise", backend="b") == 1
        with pytest.raises(NotReady, match="failed in a comparison of this stream: raise"):
            await stage.stream.comparisons.join("b")
        stage.backends["b"].knobs = Knobs()
        await asyncio.sleep(1.1)
        async with compared(stage, "b") as (_, seen):
            await until(lambda: len(seen.frames) > 10)
        assert stage.viewer.pts == [n * 3600 for n in range(len(stage.viewer.pts))]
        assert set(stage.viewer.sources) == {"a"}


@in_virtual_time
async def test_three_faults_have_the_backend_probed_and_quarantined_if_it_is_to_blame() -> None:
    async with live("a", "b") as stage:
        stage.backends["b"].knobs = Knobs(fail_at=5, error=UpscaleError("toy failure"))
        for wait_s in (1.1, 2.1, 0.0):
            async with compared(stage, "b") as (_, seen):
                await ended(seen.task)
            await asyncio.sleep(wait_s)
        await until(lambda: stage.table.info("b").state is BackendState.QUARANTINED)
        assert stage.backends["b"].probed == 1
        assert set(stage.viewer.sources) == {"a"}


@in_virtual_time
async def test_a_lane_that_hangs_ends_the_view_and_the_backend_is_told() -> None:
    async with live("a", "b") as stage:
        stage.backends["b"].knobs = Knobs(hang_at=40)
        async with compared(stage, "b") as (comparison, seen):
            await ended(seen.task)
            assert comparison.reason == "hang: no answer"
        assert stage.backends["b"].hung == [stage.backends["b"].lanes[0]]
        assert stage.stream.state is StreamState.LIVE


@in_virtual_time
async def test_the_stream_can_move_to_the_backend_that_it_is_compared_with() -> None:
    async with live("a", "b") as stage, compared(stage, "b") as (_, seen):
        await asyncio.sleep(1.0)
        stage.stream.switch("b")
        await asyncio.sleep(3.0)
        assert stage.stream.backend == "b"
        assert stage.backends["b"].used == 2
        assert seen.pts[-1] == stage.viewer.pts[-1]
        assert [after - before for before, after in zip(seen.pts, seen.pts[1:], strict=False)] == [
            3600
        ] * (len(seen.pts) - 1)


@in_virtual_time
async def test_a_comparison_leaves_its_slot_to_a_stream_that_moves_there() -> None:
    async with live("a", "b") as stage:
        stage.backends["b"].total = 1
        async with compared(stage, "b") as (comparison, seen):
            await asyncio.sleep(1.0)
            stage.table.must_be_free("b", "cam")  # as good as free
            stage.stream.switch("b")
            await ended(seen.task)
            assert comparison.reason == "its place on b is needed by stream cam"
            await asyncio.sleep(2.0)
            assert stage.stream.backend == "b"
            assert stage.backends["b"].used == 1
            assert stage.viewer.pts == [n * 3600 for n in range(len(stage.viewer.pts))]
            with pytest.raises(NoCapacity):
                await stage.stream.comparisons.join("b")
            assert stage.stream.backend == "b"


@in_virtual_time
async def test_a_comparison_leaves_its_slot_to_what_stands_in_for_a_failed_lane() -> None:
    async with live("ai", "bicubic") as stage:
        stage.backends["bicubic"].total = 1
        async with compared(stage, "bicubic") as (comparison, seen):
            await asyncio.sleep(1.0)
            stage.backends["ai"].lanes[0]._knobs = dataclasses.replace(
                stage.backends["ai"].knobs, fail_at=stage.backends["ai"].lanes[0].delivered + 1
            )
            await ended(seen.task)
            assert comparison.reason == "its place on bicubic is needed by stream cam"
            await until(lambda: stage.viewer.sources[-1] == "bicubic")
            assert stage.backends["bicubic"].used == 1


@in_virtual_time
async def test_it_is_left_out_while_the_stream_itself_loses_frames() -> None:
    async with live("a", "b") as stage, compared(stage, "b") as (_, seen):
        await asyncio.sleep(2.0)
        own = stage.backends["a"].lanes[0]
        lane = stage.backends["b"].lanes[0]
        own.dropped["overdue"] += 1
        await asyncio.sleep(0.1)
        taken = len(lane.offered)
        await asyncio.sleep(0.8)
        assert len(lane.offered) == taken
        assert stage.stream.snapshot().compare[0].state == "left_out"
        await asyncio.sleep(1.0)
        half = len(lane.offered) - taken
        assert 8 <= half <= 18  # of 25
        await asyncio.sleep(10.0)
        assert stage.stream.snapshot().compare[0].state == "live"
        assert stage.metrics.value("frames_dropped_total", stage="compare", reason="gives_way") > 25
        own_times = times(stage.viewer)
        assert all(pts in own_times for pts in seen.pts)
        seen.assert_decodable()


@in_virtual_time
async def test_another_size_and_another_publisher_are_followed() -> None:
    async with live("a", "b") as stage, compared(stage, "b") as (_, seen):
        await asyncio.sleep(1.0)
        second = FakePublisher()
        done = asyncio.ensure_future(stage.stream.publish(second))
        await stream_frames(second, stage.clock, 50, size=Size(32, 16))
        await asyncio.sleep(0.2)
        assert len(stage.backends["b"].lanes) == 2
        assert stage.backends["b"].used == 1
        assert seen.frames[-1].size == Size(64, 32)
        assert seen.pts[-1] == stage.viewer.pts[-1]
        seen.assert_decodable()
        second.end()
        await ended(done)


@in_virtual_time
async def test_a_changed_bit_rate_is_for_both() -> None:
    async with live("a", "b") as stage, compared(stage, "b"):
        await asyncio.sleep(1.0)
        stage.stream.change(Change(bitrate_bps=3_000_000))
        await asyncio.sleep(0.1)
        for name in ("a", "b"):
            assert {r.bitrate_bps for r in stage.backends[name].lanes[0].wanted} == {3_000_000}


@in_virtual_time
async def test_a_viewer_in_another_codec_gets_a_rendition_of_its_own_there() -> None:
    async with live("a", "b") as stage:
        comparison = await stage.stream.comparisons.join("b")
        seen = Seen(comparison.watch(Codec.VP8))
        await until(lambda: len(seen.frames) > 10)
        assert {frame.rendition.codec for frame in seen.frames} == {Codec.VP8}
        assert {r.codec for r in stage.backends["a"].lanes[0].wanted} == {Codec.H264}
        seen.cursor.close()
        stage.stream.comparisons.leave(comparison)


@in_virtual_time
async def test_the_end_of_the_stream_is_the_end_of_the_view() -> None:
    async with live("a", "b") as stage:
        comparison = await stage.stream.comparisons.join("b")
        seen = Seen(comparison.watch())
        await asyncio.sleep(1.0)
        await stage.stream.close("closed by request")
        await ended(seen.task)
        assert comparison.reason == "closed by request"
        await until(lambda: stage.stream.state is StreamState.CLOSED)
        assert stage.backends["b"].used == 0
        assert comparison.watch().closed  # who connects too late is let go at once


@in_virtual_time
async def test_who_watches_only_the_other_picture_keeps_the_stream_going() -> None:
    settings = StreamSettings(H264, idle=Idle.PAUSE, idle_after_s=1.0, parked_s=1.0)
    async with live("a", "b", settings=settings) as stage, compared(stage, "b") as (_, seen):
        stage.viewer.cursor.close()
        await asyncio.sleep(4.0)
        assert stage.clock.now_s() - seen.times_s[-1] < 0.1


@in_virtual_time
async def test_a_policy_finds_free_what_only_a_comparison_holds() -> None:
    async with live("a", "b") as stage, compared(stage, "b"):
        stage.backends["b"].total = 1
        assert not stage.table.info("b").has_room
        assert {one.name: one.has_room for one in stage.table.as_free()} == {"a": True, "b": True}


@in_virtual_time
async def test_a_backend_that_opens_slowly_is_waited_for_and_cancelling_leaves_nothing() -> None:
    async with live("a", "b") as stage:
        slow: FakeBackend = stage.backends["b"]
        slow.knobs = Knobs(opening_s=1.0)
        asking = asyncio.ensure_future(stage.stream.comparisons.join("b"))
        await asyncio.sleep(0.5)
        assert not asking.done()
        asking.cancel()
        await asyncio.wait([asking])
        await settle()
        assert stage.stream.snapshot().compare == ()
        assert slow.used == 0


def test_restraint_halves_and_rises_again() -> None:
    restraint = Restraint()
    assert restraint.kept(0.0) == 1.0
    restraint.strained(10.0)
    restraint.strained(10.4)  # the same strain goes on
    assert restraint.kept(11.3) == 0.0
    assert restraint.kept(11.4) == 0.5
    assert restraint.kept(13.4) == pytest.approx(0.7)
    for at_s in range(20, 40, 2):
        restraint.strained(float(at_s))
    assert restraint.kept(39.0) == 0.125
    assert restraint.kept(60.0) == 1.0


@in_virtual_time
async def test_while_frames_are_left_out_the_publisher_is_asked_for_no_keyframe() -> None:
    """A worker that takes coded frames needs one after each gap: the main picture would pay."""
    async with live("a", "b") as stage, compared(stage, "b") as (comparison, _):
        await asyncio.sleep(1.0)
        asked = stage.publisher.keyframes_asked
        comparison._restraint.strained(stage.clock.now_s())
        comparison._options().ask_source()
        await settle()
        assert stage.publisher.keyframes_asked == asked
        await asyncio.sleep(15.0)
        comparison._options().ask_source()
        await asyncio.sleep(1.0)
        assert stage.publisher.keyframes_asked == asked + 1


class Held:
    """A guest that has a place, or none yet."""

    backend = "b"

    def __init__(self, holds: bool) -> None:
        self.holds = holds

    async def give_way(self, reason: str) -> None:
        self.holds = False


@in_virtual_time
async def test_only_a_guest_that_has_a_place_counts_as_one_and_can_leave_it() -> None:
    guests = Guests()
    guests.add(Held(False))
    assert guests.on("b") == 0
    assert not await guests.make_room("b", "needed")
    guests.add(Held(True))
    assert guests.on("b") == 1
    assert await guests.make_room("b", "needed")
    assert guests.on("b") == 0
