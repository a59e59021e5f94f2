"""Laws of delay in virtual time: what live tests can only watch on a machine with time to spare."""

from __future__ import annotations

import asyncio

import pytest
from tests.routing.fakes import FakePublisher, Knobs, frame, stream_frames
from tests.routing.stage import CHUNKED, Stage, live
from tests.routing.virtual_time import ended, in_virtual_time

from streamlift.frames import Size

FRAME_S = 0.04
SOON_S = 1.0
"""Another publisher or another size is shown within this."""


@in_virtual_time
async def test_a_model_of_one_frame_delays_by_its_own_time_and_no_more() -> None:
    async with live("plain", seconds=20, knobs=Knobs(delay_s=0.02)) as stage:
        await asyncio.sleep(10.0)
        delays_s = _delays(stage)[25:]
        assert max(delays_s) < 0.02 + FRAME_S
        assert max(delays_s) - min(delays_s) < FRAME_S


@in_virtual_time
async def test_a_chunked_model_delays_by_what_its_chunk_needs_and_evenly() -> None:
    """Budget: `(step - 1 + lag) / fps` before computing, and the computing."""
    async with live("slow", seconds=40, knobs=CHUNKED) as stage:
        await asyncio.sleep(30.0)
        settled_s = _delays(stage)[250:]
        budget_s = (CHUNKED.step - 1 + CHUNKED.lag) * FRAME_S + CHUNKED.delay_s
        assert max(settled_s) < budget_s + 2 * FRAME_S
        assert max(settled_s) - min(settled_s) < 2 * FRAME_S


@pytest.mark.parametrize("burst", [1, 4, 12])
@in_virtual_time
async def test_bursts_are_delayed_by_their_own_length(burst: int) -> None:
    async with live("plain", seconds=40, burst=burst) as stage:
        await asyncio.sleep(30.0)
        settled_s = _delays(stage)[250:]
        assert max(settled_s) < (burst - 1) * FRAME_S + 3 * FRAME_S
        assert max(stage.viewer.gaps(20.0)) < 1.5 * FRAME_S


@in_virtual_time
async def test_the_delay_of_a_bursty_chunked_stream_does_not_grow() -> None:
    async with live("slow", seconds=100, burst=12, knobs=CHUNKED) as stage:
        await asyncio.sleep(90.0)
        delays_s = _delays(stage)
        assert max(delays_s[-500:]) <= max(delays_s[500:1000]) + 0.01


@in_virtual_time
async def test_a_second_publisher_is_shown_within_a_second() -> None:
    async with live("plain") as stage:
        second = FakePublisher()
        came_s = stage.clock.now_s()
        done = asyncio.ensure_future(stage.stream.publish(second))
        await stream_frames(second, stage.clock, 50, size=Size(32, 16))
        shown_s = _first_of(stage, Size(64, 32))
        assert shown_s - came_s < SOON_S
        second.end()
        await ended(done)


@pytest.mark.parametrize("knobs", [Knobs(), CHUNKED], ids=["plain", "chunked"])
@in_virtual_time
async def test_another_size_is_shown_within_a_second(knobs: Knobs) -> None:
    async with live("any", seconds=3.0, knobs=knobs) as stage:
        await asyncio.sleep(1.5)
        changed_s = stage.clock.now_s()
        pts = 1000 + 10 * 90_000
        await stream_frames(stage.publisher, stage.clock, 75, first_pts=pts, size=Size(32, 16))
        assert _first_of(stage, Size(64, 32)) - changed_s < SOON_S


@pytest.mark.parametrize("told", [10.0, 20.0, 24.0])
@in_virtual_time
async def test_the_delay_is_bounded_where_pictures_come_faster_than_their_timestamps_say(
    told: float,
) -> None:
    async with live("plain", seconds=2.0) as stage:
        for n in range(25 * 40):
            pts = 1_000_000 + round(n * 90_000 / told)
            stage.publisher.push(frame(pts, stage.clock.now_s()))
            await asyncio.sleep(FRAME_S)
        delays_s = _delays(stage)
        assert len(delays_s) > 25 * 39
        assert max(delays_s) < 0.5
        assert max(delays_s[-500:]) < 0.15


def _delays(stage: Stage) -> list[float]:
    """From arrival at the publisher to the viewer, of each frame."""
    viewer = stage.viewer
    return [
        shown_s - one.arrived_s for shown_s, one in zip(viewer.times_s, viewer.frames, strict=True)
    ]


def _first_of(stage: Stage, size: Size) -> float:
    """When the first picture of this size was shown."""
    viewer = stage.viewer
    times = zip(viewer.times_s, viewer.frames, strict=True)
    return next(shown_s for shown_s, one in times if one.size == size)
