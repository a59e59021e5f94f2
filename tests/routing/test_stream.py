"""One stream, from publisher to viewers, with fakes at both ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.routing.fakes import (
    H264,
    FakeBackend,
    FakePublisher,
    Knobs,
    stream_frames,
)
from tests.routing.stage import Stage, live
from tests.routing.virtual_time import LoopClock, ended, in_virtual_time, settle, until

from streamlift.errors import StreamTaken, UnknownStream
from streamlift.frames import Codec, EncodedFrame, IngestCounts, Size
from streamlift.metrics import Metrics
from streamlift.routing.backends import BackendTable
from streamlift.routing.broadcast import Cursor
from streamlift.routing.settings import Idle, StreamSettings, View
from streamlift.routing.states import StreamState
from streamlift.routing.stream import Stream

BASIC = StreamSettings(H264)


class Seen:
    """A viewer: all frames of a cursor, until it ends."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.frames: list[EncodedFrame] = []
        self.times_s: list[float] = []
        self.task = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        with self.cursor:
            async for one in self.cursor:
                self.frames.append(one)
                self.times_s.append(asyncio.get_running_loop().time())

    @property
    def pts(self) -> list[int]:
        return [one.pts for one in self.frames]


@asynccontextmanager
async def running(
    settings: StreamSettings = BASIC, backend: FakeBackend | None = None
) -> AsyncIterator[tuple[Stream, FakeBackend, LoopClock]]:
    """A stream with its owner task, closed at the end."""
    clock = LoopClock()
    backend = backend or FakeBackend(clock)
    stream = Stream(
        "cam",
        BackendTable([backend], clock=clock),
        backend.name,
        clock=clock,
        metrics=Metrics(),
        settings=settings,
    )
    owner = asyncio.ensure_future(stream.run())
    await settle()
    try:
        yield stream, backend, clock
    finally:
        await stream.close("test over")
        await ended(owner)


@in_virtual_time
async def test_every_frame_reaches_every_viewer_in_order() -> None:
    async with running() as (stream, _, clock):
        publisher = FakePublisher()
        viewers = [Seen(stream.watch()) for _ in range(3)]
        done = asyncio.ensure_future(stream.publish(publisher))
        await stream_frames(publisher, clock, 50)
        await until(lambda: len(viewers[0].frames) == 50)
        assert stream.state is StreamState.LIVE
        for viewer in viewers:
            assert viewer.pts == [n * 3600 for n in range(50)]
        publisher.end()
        await ended(done)


@in_virtual_time
async def test_the_source_view_goes_in_step_with_the_upscaled_one() -> None:
    async with running() as (stream, backend, clock):
        backend.knobs = Knobs(first=1, step=8, lag=4)
        publisher = FakePublisher()
        upscaled, source = Seen(stream.watch()), Seen(stream.watch(View.SOURCE))
        done = asyncio.ensure_future(stream.publish(publisher))
        await stream_frames(publisher, clock, 60, keyframe_every=30)
        publisher.end()
        await ended(done)
        await until(lambda: len(upscaled.frames) == 60)
        assert source.pts == upscaled.pts
        assert source.times_s == upscaled.times_s
        assert {one.data for one in source.frames} == {b"lr"}


@in_virtual_time
async def test_access_units_of_frames_the_lane_dropped_are_relayed_too() -> None:
    async with running() as (stream, backend, clock):
        backend.knobs = Knobs(lose=frozenset({3, 4, 7}))
        publisher = FakePublisher()
        upscaled, source = Seen(stream.watch()), Seen(stream.watch(View.SOURCE))
        done = asyncio.ensure_future(stream.publish(publisher))
        await stream_frames(publisher, clock, 10, keyframe_every=10)
        await until(lambda: len(upscaled.frames) == 7)
        assert source.pts == [n * 3600 for n in range(10)]
        publisher.end()
        await ended(done)


@in_virtual_time
async def test_other_renditions_are_encoded_only_while_watched() -> None:
    async with running() as (stream, backend, clock):
        publisher = FakePublisher()
        done = asyncio.ensure_future(stream.publish(publisher))
        await stream_frames(publisher, clock, 5)
        lane = backend.lanes[0]
        assert {r.codec for r in lane.wanted} == {Codec.H264}
        with stream.watch(codec=Codec.VP8):
            assert {r.codec for r in lane.wanted} == {Codec.H264, Codec.VP8}
        assert {r.codec for r in lane.wanted} == {Codec.H264}
        publisher.end()
        await ended(done)


@in_virtual_time
async def test_75_requests_of_viewers_make_at_most_eleven_keyframes() -> None:
    async with running() as (stream, backend, clock):
        publisher = FakePublisher()
        done = asyncio.ensure_future(stream.publish(publisher))
        frames = asyncio.ensure_future(stream_frames(publisher, clock, 150))
        await asyncio.sleep(0.2)
        before = backend.lanes[0].keyframes_made
        for _ in range(75):
            stream.request_keyframe()
            await asyncio.sleep(5 / 75)
        await frames
        assert 9 <= backend.lanes[0].keyframes_made - before <= 11
        publisher.end()
        await ended(done)


@in_virtual_time
async def test_a_viewer_of_the_source_makes_the_publisher_send_a_keyframe() -> None:
    async with running() as (stream, _, clock):
        publisher = FakePublisher()
        done = asyncio.ensure_future(stream.publish(publisher))
        await settle()
        with stream.watch(View.SOURCE), stream.watch(View.SOURCE):
            await stream_frames(publisher, clock, 30)
        assert publisher.keyframes_asked == 2
        publisher.end()
        await ended(done)


@in_virtual_time
async def test_viewers_stay_when_the_publisher_goes_and_see_its_return() -> None:
    async with running() as (stream, _, clock):
        viewer = Seen(stream.watch())
        for _ in range(2):
            publisher = FakePublisher()
            done = asyncio.ensure_future(stream.publish(publisher))
            await stream_frames(publisher, clock, 10, first_pts=123_456)
            publisher.end()
            await ended(done)
            await asyncio.sleep(30.0)
            assert stream.state is StreamState.WAITING
        assert not viewer.cursor.closed
        assert sorted(set(viewer.pts)) == viewer.pts
        assert len(viewer.pts) == 20


@in_virtual_time
async def test_a_stream_without_publisher_closes_after_a_minute() -> None:
    async with running() as (stream, _, clock):
        viewer = Seen(stream.watch())
        publisher = FakePublisher()
        done = asyncio.ensure_future(stream.publish(publisher))
        await stream_frames(publisher, clock, 10)
        publisher.end()
        await ended(done)
        await asyncio.sleep(59.0)
        assert stream.snapshot().state is StreamState.WAITING
        await asyncio.sleep(2.0)
        assert stream.snapshot().state is StreamState.CLOSED
        assert stream.snapshot().reason == "no publisher for 60 s"
        await ended(viewer.task)
        with pytest.raises(UnknownStream):
            stream.watch()


@in_virtual_time
async def test_a_second_publisher_takes_over() -> None:
    async with running() as (stream, _, clock):
        viewer = Seen(stream.watch())
        old, new = FakePublisher(), FakePublisher()
        old_done = asyncio.ensure_future(stream.publish(old))
        await stream_frames(old, clock, 10)
        new_done = asyncio.ensure_future(stream.publish(new))
        await stream_frames(new, clock, 10, first_pts=7)
        await ended(old_done)
        assert old.closed_with == "taken_over"
        await until(lambda: len(viewer.frames) == 20)
        assert sorted(set(viewer.pts)) == viewer.pts
        new.end()
        await ended(new_done)


@in_virtual_time
async def test_a_second_publisher_is_refused_without_takeover() -> None:
    async with running(StreamSettings(H264, takeover=False)) as (stream, _, clock):
        first = FakePublisher()
        done = asyncio.ensure_future(stream.publish(first))
        await stream_frames(first, clock, 2)
        with pytest.raises(StreamTaken):
            await stream.publish(FakePublisher())
        assert first.closed_with is None
        first.end()
        await ended(done)


@in_virtual_time
async def test_a_new_size_opens_a_new_lane_and_the_old_one_drains() -> None:
    async with running() as (stream, backend, clock):
        backend.knobs = Knobs(step=8, lag=4)
        viewer = Seen(stream.watch())
        publisher = FakePublisher()
        done = asyncio.ensure_future(stream.publish(publisher))
        await stream_frames(publisher, clock, 25)
        await stream_frames(publisher, clock, 25, first_pts=91_000, size=Size(32, 16))
        publisher.end()
        await ended(done)
        await until(lambda: len(viewer.frames) == 50)
        assert [lane.closed for lane in backend.lanes] == [True, True]
        assert sorted(set(viewer.pts)) == viewer.pts
        assert {one.size for one in viewer.frames} == {Size(32, 32), Size(64, 32)}


@in_virtual_time
async def test_a_raising_publisher_ends_its_own_task_and_leaves_the_stream_waiting() -> None:
    async with running() as (stream, _, clock):
        publisher = FakePublisher()
        done = asyncio.ensure_future(stream.publish(publisher))
        await stream_frames(publisher, clock, 3)
        publisher.fail(RuntimeError("decoder gone"))
        with pytest.raises(RuntimeError, match="decoder gone"):
            await done
        assert stream.state is StreamState.WAITING


@in_virtual_time
async def test_an_idle_stream_parks_then_frees_its_slot_and_is_back_for_a_viewer() -> None:
    settings = StreamSettings(H264, idle=Idle.PAUSE, idle_after_s=0.5, parked_s=1.0)
    async with running(settings) as (stream, backend, clock):
        publisher = FakePublisher()
        done = asyncio.ensure_future(stream.publish(publisher))
        frames = asyncio.ensure_future(stream_frames(publisher, clock, 125))
        await asyncio.sleep(1.5)
        assert (backend.used, backend.lanes[0].parked) == (1, 1)
        await asyncio.sleep(0.7)
        assert backend.used == 0
        viewer, came_s = Seen(stream.watch()), clock.now_s()
        await frames
        assert viewer.times_s[0] - came_s < 0.3
        assert len(viewer.frames) > 60
        publisher.end()
        await ended(done)


@in_virtual_time
async def test_the_snapshot_tells_what_was_measured() -> None:
    async with running() as (stream, _, clock):
        publisher = FakePublisher()
        Seen(stream.watch())
        done = asyncio.ensure_future(stream.publish(publisher))
        await stream_frames(publisher, clock, 60, fps=20, keyframe_every=20)
        await asyncio.sleep(0.1)
        told = stream.snapshot()
        assert told.publisher is not None
        assert told.publisher.codec is Codec.H264
        assert told.publisher.fps == pytest.approx(20)
        assert told.output.fps == pytest.approx(20)
        assert told.output.renditions == (H264,)
        assert (told.frames.received, told.frames.encoded) == (60, 60)
        assert told.latency_ms["upscale"].p50 == pytest.approx(10, abs=1)
        assert told.latency_ms["total"].p95 == pytest.approx(10, abs=1)
        assert told.viewers == 1
        assert (told.state, told.backend, told.degraded) == (StreamState.LIVE, "fake", False)
        publisher.end()
        await ended(done)
        assert stream.snapshot().publisher is None
        assert stream.snapshot().frames.received == 60


@in_virtual_time
async def test_without_pictures_there_are_no_output_rates() -> None:
    async with running() as (stream, _, clock):
        publisher = FakePublisher()
        done = asyncio.ensure_future(stream.publish(publisher))
        await stream_frames(publisher, clock, 60)
        publisher.end()
        await ended(done)
        assert stream.snapshot().output.fps == pytest.approx(25)
        await asyncio.sleep(3.5)
        output = stream.snapshot().output
        assert (output.fps, output.bitrate_bps) == (None, None)
        assert output.size is not None


@in_virtual_time
async def test_a_lane_that_steps_down_to_keep_up_makes_the_stream_degraded() -> None:
    async with running() as (stream, backend, clock):
        publisher = FakePublisher()
        done = asyncio.ensure_future(stream.publish(publisher))
        await stream_frames(publisher, clock, 10)
        backend.lanes[-1].degraded = True
        told = stream.snapshot()
        assert told.degraded
        assert "fake" in told.reason
        backend.lanes[-1].degraded = False
        assert not stream.snapshot().degraded
        publisher.end()
        await ended(done)


@in_virtual_time
async def test_closing_sends_publisher_and_viewers_away() -> None:
    async with running() as (stream, backend, clock):
        viewer = Seen(stream.watch())
        publisher = FakePublisher()
        done = asyncio.ensure_future(stream.publish(publisher))
        await stream_frames(publisher, clock, 5)
        await stream.close("closed by request")
        await ended(done)
        await ended(viewer.task)
        assert publisher.closed_with == "closed by request"
        assert backend.lanes[0].closed
        assert len(viewer.frames) == 5


@in_virtual_time
async def test_what_a_publisher_still_sends_when_the_stream_has_ended_goes_nowhere() -> None:
    publisher = SlowToLeave()
    async with running() as (stream, backend, clock):
        done = asyncio.ensure_future(stream.publish(publisher))
        await stream_frames(publisher, clock, 5)
        await stream.close("over")
        await until(lambda: stream.state is StreamState.CLOSED)
        await stream_frames(publisher, clock, 1, first_pts=900_000)
        await ended(done)
        assert len(backend.lanes) == 1


class SlowToLeave(FakePublisher):
    """Frames that have arrived already still come after it was told to end."""

    async def aclose(self, reason: str) -> None:
        self.closed_with = reason


@in_virtual_time
async def test_what_publishers_and_lanes_count_is_in_the_metrics_once() -> None:
    async with live("ai", seconds=3.0) as stage:
        await asyncio.sleep(2.0)
        stage.publisher.counts = IngestCounts(90, 80, {"packet_loss": 5})
        stage.backends["ai"].lanes[0].dropped["stale"] = 3
        await asyncio.sleep(0.3)
        assert _counted(stage) == (90, 80, 5, 3)
        await asyncio.sleep(0.6)
        stage.publisher.end()
        await asyncio.sleep(0.6)
        assert _counted(stage) == (90, 80, 5, 3)
    assert _counted(stage) == (90, 80, 5, 3)
    assert stage.stream.snapshot().frames.dropped == {"packet_loss": 5, "stale": 3}


@in_virtual_time
async def test_viewers_on_thin_links_share_one_rendition_while_they_watch() -> None:
    async with running() as (stream, _, _):
        own = stream._lane_options().renditions
        with stream.watch(thin=True), stream.watch(thin=True), stream.watch():
            (thin,) = stream._lane_options().renditions - own
            assert (thin.codec, thin.thin) == (Codec.H264, True)
        assert stream._lane_options().renditions == own


@in_virtual_time
async def test_upscaled_counts_what_came_out_of_the_model_though_it_was_never_encoded() -> None:
    async with live("ai", knobs=Knobs(lose_every=5), seconds=2.0) as stage:
        await asyncio.sleep(4.0)
        frames = stage.stream.snapshot().frames
        assert frames.upscaled == sum(lane.upscaled for lane in stage.backends["ai"].lanes) >= 50
        assert frames.encoded == len(stage.viewer.pts) < frames.upscaled
        assert stage.metrics.value("frames_total", stage="upscaled") == frames.upscaled


def _counted(stage: Stage) -> tuple[float, ...]:
    value = stage.metrics.value
    return (
        value("frames_total", stage="received"),
        value("frames_total", stage="decoded"),
        value("frames_dropped_total", stage="ingest", reason="packet_loss"),
        value("frames_dropped_total", stage="lane", reason="stale"),
    )


@in_virtual_time
async def test_frames_that_a_lane_takes_too_long_to_open_for_are_counted() -> None:
    async with running() as (stream, backend, clock):
        backend.knobs = Knobs(opening_s=4.0)
        viewer = Seen(stream.watch())
        publisher = FakePublisher()
        done = asyncio.ensure_future(stream.publish(publisher))
        await stream_frames(publisher, clock, 150)
        await asyncio.sleep(1.0)
        lost = stream.snapshot().frames.dropped["stale"]
        assert lost + len(viewer.pts) == 150
        assert 30 < lost < 40
        publisher.end()
        await ended(done)
