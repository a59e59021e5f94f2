"""Moving a live picture from one backend to another."""

from __future__ import annotations

import asyncio

import pytest
from tests.routing.fakes import Knobs
from tests.routing.stage import CHUNKED, live
from tests.routing.virtual_time import in_virtual_time, until

from streamlift.errors import UpscaleError
from streamlift.routing.events import EventKind
from streamlift.routing.states import StreamState
from streamlift.routing.transition import SwitchMode

FRAME = 3600


@in_virtual_time
async def test_a_switch_between_equal_delays_loses_and_repeats_nothing() -> None:
    async with live("a", "b") as stage:
        stage.stream.switch("b")
        assert stage.stream.snapshot().state is StreamState.SWITCHING
        await until(lambda: stage.stream.state is StreamState.LIVE)
        await asyncio.sleep(2.0)
        viewer = stage.viewer
        assert viewer.pts == [n * FRAME for n in range(len(viewer.pts))]
        assert set(viewer.sources) == {"a", "b"}
        viewer.assert_decodable()
        assert max(viewer.gaps(1.0)) < 0.12
        assert stage.backends["a"].used == 0
        assert stage.stream.snapshot().backend == "b"


@in_virtual_time
async def test_between_equals_that_are_late_at_times_the_picture_moves_at_once() -> None:
    jittery = Knobs(jitter_s=0.02)
    async with live("a", "b", knobs=jittery) as stage:
        stage.backends["b"].knobs = jittery
        stage.stream.switch("b")
        await asyncio.sleep(0.7)
        assert stage.viewer.sources[-1] == "b"
        assert stage.viewer.pts == [n * FRAME for n in range(len(stage.viewer.pts))]


@in_virtual_time
async def test_what_a_lane_held_for_look_ahead_does_not_rush_past_the_viewers() -> None:
    lagging = Knobs(lag=6)  # even, and six frames late
    async with live("a", "b", knobs=lagging) as stage:
        stage.backends["b"].knobs = lagging
        stage.stream.switch("b")
        await asyncio.sleep(3.0)
        viewer = stage.viewer
        assert viewer.sources[-1] == "b"
        assert viewer.pts == [n * FRAME for n in range(len(viewer.pts))]
        assert max(viewer.gaps(1.0)) < 0.12
        assert sum(gap < 0.03 for gap in viewer.gaps(1.0)) <= 3  # six would be a rush


@in_virtual_time
async def test_constant_latency_is_kept_behind_a_lane_that_lags_evenly() -> None:
    async with live("slow", "fast", knobs=Knobs(lag=6)) as stage:
        before_s = stage.viewer.times_s[-1] - stage.viewer.frames[-1].arrived_s
        assert before_s > 0.2
        stage.stream.switch("fast", mode=SwitchMode.CONSTANT_LATENCY)
        await asyncio.sleep(4.0)
        viewer = stage.viewer
        assert viewer.sources[-1] == "fast"
        assert viewer.pts == [n * FRAME for n in range(len(viewer.pts))]
        assert viewer.times_s[-1] - viewer.frames[-1].arrived_s == pytest.approx(before_s, abs=0.05)


@in_virtual_time
async def test_what_a_newcomer_drops_on_trial_is_not_counted() -> None:
    async with live("a", "b") as stage:
        stage.backends["b"].knobs = Knobs(lose=frozenset({2, 3}))
        stage.stream.switch("b")
        await asyncio.sleep(3.0)
        assert stage.viewer.sources[-1] == "b"
        assert stage.viewer.pts == [n * FRAME for n in range(len(stage.viewer.pts))]
        assert stage.backends["b"].lanes[0].dropped == {"stale": 2}
        told = stage.stream.snapshot().frames
        assert told.dropped == {}


@in_virtual_time
async def test_the_measured_gap_is_told() -> None:
    async with live("a", "b") as stage:
        stage.stream.switch("b")
        await until(lambda: EventKind.SWITCHED in stage.kinds())
        (started,) = stage.log(EventKind.SWITCH_STARTED)
        (switched,) = stage.log(EventKind.SWITCHED)
        assert (started.before, started.after) == ("a", "b")
        assert (switched.before, switched.after) == ("a", "b")
        assert switched.gap_ms is not None
        assert 10 < switched.gap_ms < 120
        assert (
            stage.metrics.value("backend_switch_total", **{"from": "a", "to": "b", "result": "ok"})
            == 1
        )


@in_virtual_time
async def test_fifty_switches_in_a_minute_lose_and_repeat_nothing() -> None:
    async with live("a", "b", seconds=70) as stage:
        for n in range(50):
            stage.stream.switch("ba"[n % 2])
            await asyncio.sleep(1.2)
        viewer = stage.viewer
        assert viewer.pts == [n * FRAME for n in range(len(viewer.pts))]
        assert max(viewer.gaps(1.0)) < 0.12
        viewer.assert_decodable()
        assert len(stage.log(EventKind.SWITCHED)) == 50


@in_virtual_time
async def test_from_slow_to_fast_the_picture_jumps_forward() -> None:
    async with live("slow", "fast", knobs=CHUNKED) as stage:
        stage.stream.switch("fast")
        await asyncio.sleep(3.0)
        viewer = stage.viewer
        viewer.assert_decodable()
        assert max(viewer.gaps(1.0)) < 0.12
        lag_s = viewer.times_s[-1] - viewer.frames[-1].arrived_s
        assert lag_s < 0.03
        steps = [b - a for a, b in zip(viewer.pts, viewer.pts[1:], strict=False)]
        assert sum(step > FRAME for step in steps) == 1
        dropped = stage.stream.snapshot().frames.dropped
        assert dropped == {"switch": (max(steps) // FRAME) - 1}


@in_virtual_time
async def test_from_fast_to_slow_the_spacing_stretches_and_nothing_is_lost() -> None:
    async with live("fast", "slow") as stage:
        stage.backends["slow"].knobs = CHUNKED
        stage.stream.switch("slow")
        await asyncio.sleep(9.0)
        viewer = stage.viewer
        assert viewer.sources[-1] == "slow"
        viewer.assert_decodable()
        assert viewer.pts == [n * FRAME for n in range(len(viewer.pts))]
        assert max(viewer.gaps(1.0)) < 0.12


@in_virtual_time
async def test_constant_latency_keeps_the_slower_backends_delay() -> None:
    async with live("slow", "fast", knobs=CHUNKED) as stage:
        before_s = stage.viewer.times_s[-1] - stage.viewer.frames[-1].arrived_s
        stage.stream.switch("fast", mode=SwitchMode.CONSTANT_LATENCY)
        await asyncio.sleep(4.0)
        stage.stream.switch("slow")
        await asyncio.sleep(4.0)
        viewer = stage.viewer
        viewer.assert_decodable()
        assert viewer.pts == [n * FRAME for n in range(len(viewer.pts))]
        assert max(viewer.gaps(1.0)) < 0.08
        assert viewer.sources[-1] == "slow"
        assert len(stage.log(EventKind.SWITCHED)) == 2
        assert viewer.times_s[-1] - viewer.frames[-1].arrived_s == pytest.approx(before_s, abs=0.1)


@in_virtual_time
async def test_between_chunked_backends_nothing_is_lost() -> None:
    async with live("a", "b", knobs=CHUNKED) as stage:
        stage.backends["b"].knobs = CHUNKED
        await asyncio.sleep(3.0)
        stage.stream.switch("b")
        await asyncio.sleep(8.0)
        viewer = stage.viewer
        assert viewer.sources[-1] == "b"
        viewer.assert_decodable()
        assert viewer.pts == [n * FRAME for n in range(len(viewer.pts))]
        assert max(viewer.gaps(4.0)) < 0.12


@in_virtual_time
async def test_a_switch_of_a_bursty_stream_stays_even() -> None:
    async with live("a", "b", burst=12) as stage:
        await asyncio.sleep(4.0)
        stage.stream.switch("b")
        await asyncio.sleep(4.0)
        viewer = stage.viewer
        assert viewer.sources[-1] == "b"
        assert viewer.pts == [n * FRAME for n in range(len(viewer.pts))]
        assert max(viewer.gaps(5.0)) < 0.12


@in_virtual_time
async def test_a_newcomer_that_never_delivers_is_given_up_after_ten_seconds() -> None:
    async with live("a", "b") as stage:
        stage.backends["b"].knobs = Knobs(hang_at=0)
        stage.stream.switch("b")
        await asyncio.sleep(9.5)
        assert stage.stream.snapshot().state is StreamState.SWITCHING
        await asyncio.sleep(1.0)
        assert stage.stream.snapshot().state is StreamState.LIVE
        assert stage.stream.snapshot().backend == "a"
        assert stage.backends["b"].used == 0
        viewer = stage.viewer
        assert viewer.pts == [n * FRAME for n in range(len(viewer.pts))]
        assert EventKind.SWITCH_ABORTED in stage.kinds()
        await asyncio.sleep(20.0)
        assert stage.kinds().count(EventKind.SWITCH_STARTED) == 1


@in_virtual_time
async def test_a_newcomer_that_fails_at_opening_leaves_the_old_one_running() -> None:
    async with live("a", "b", "bicubic") as stage:
        stage.backends["b"].knobs = Knobs(fail_at=0, error=UpscaleError("no weights after all"))
        stage.stream.switch("b")
        await asyncio.sleep(3.0)
        viewer = stage.viewer
        assert viewer.pts == [n * FRAME for n in range(len(viewer.pts))]
        assert set(viewer.sources) == {"a"}
        (aborted,) = stage.log(EventKind.SWITCH_ABORTED)
        assert "no weights after all" in aborted.reason
        assert not stage.stream.snapshot().degraded


@in_virtual_time
async def test_many_requests_coalesce_and_the_last_wins() -> None:
    async with live("a", "b", "c") as stage:
        for name in ("b", "c", "b", "a", "b", "c"):
            stage.stream.switch(name)
            await asyncio.sleep(0.05)
        await asyncio.sleep(3.0)
        viewer = stage.viewer
        assert viewer.pts == [n * FRAME for n in range(len(viewer.pts))]
        assert set(viewer.sources) == {"a", "c"}
        assert stage.backends["b"].used == 0
        assert stage.stream.snapshot().backend == "c"
        assert stage.stream.snapshot().state is StreamState.LIVE


@in_virtual_time
async def test_going_back_to_the_shown_backend_gives_up_the_switch() -> None:
    async with live("a", "b") as stage:
        stage.stream.switch("b")
        stage.stream.switch("a")
        await asyncio.sleep(2.0)
        assert set(stage.viewer.sources) == {"a"}
        assert stage.stream.snapshot().state is StreamState.LIVE


@in_virtual_time
async def test_no_more_than_the_allowed_delay_is_left_after_an_aborted_switch() -> None:
    async with live("a", "b") as stage:
        stage.backends["b"].knobs = CHUNKED
        stage.stream.switch("b")
        await asyncio.sleep(1.5)
        stage.stream.switch("a")
        await asyncio.sleep(2.0)
        viewer = stage.viewer
        assert viewer.times_s[-1] - viewer.frames[-1].arrived_s < 0.03
