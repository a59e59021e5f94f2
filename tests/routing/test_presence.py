"""What viewers see while a stream has no pictures."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools

from tests.routing.fakes import FakePublisher, frame, stream_frames
from tests.routing.stage import BASIC, Stage, live
from tests.routing.virtual_time import ended, in_virtual_time, settle, until

from streamlift.frames import Frame, Size
from streamlift.routing.events import EventKind
from streamlift.routing.presence import USUAL, Absence
from streamlift.routing.states import StreamState


def slate(size: Size, reason: str = "") -> Frame:
    return frame(0, size=size)


def test_the_first_frame_ends_no_absence_but_later_returns_do() -> None:
    absence = Absence(0.0)
    assert not absence.frame(1.0)
    assert absence.left()
    assert not absence.left()
    assert absence.frame(2.0)
    assert not absence.frame(2.04)


def test_half_a_second_without_a_new_picture_is_quiet_unless_the_publisher_is_gone() -> None:
    absence = Absence(0.0)
    assert not absence.quiet(5.0)
    absence.frame(1.0)
    assert not absence.quiet(1.5)
    assert absence.quiet(1.6)
    absence.left()
    assert not absence.quiet(9.0)


def test_a_slate_is_due_twice_a_second_from_two_seconds_on() -> None:
    absence = Absence(0.0)
    absence.frame(10.0)
    absence.left()
    due = [n / 10 for n in range(100, 140) if absence.slate_due(n / 10)]
    assert due == [12.0, 12.5, 13.0, 13.5]


@in_virtual_time
async def test_viewers_see_the_last_picture_then_a_slate_then_the_returned_publisher() -> None:
    async with live("ai", "bicubic", seconds=2.5, slate=slate) as stage:
        stage.publisher.end()
        await asyncio.sleep(8.0)
        assert stage.stream.snapshot().state is StreamState.WAITING
        assert stage.viewer.sources.count("bicubic") >= 10
        assert stage.backends["ai"].used == 0
        late = stage.watch()
        await until(lambda: bool(late.frames), within_s=1.0)

        second, came_s = FakePublisher(), stage.clock.now_s()
        done = asyncio.ensure_future(stage.stream.publish(second))
        await stream_frames(second, stage.clock, 25, first_pts=5)
        assert stage.stream.snapshot().state is StreamState.LIVE
        late.assert_decodable()
        back_s = next(t for t, name in zip(late.times_s, late.sources, strict=True) if name == "ai")
        assert back_s - came_s < 1.0
        assert stage.backends["bicubic"].used == 0
        kinds = stage.kinds()
        assert kinds.count(EventKind.PUBLISHER_GONE) == kinds.count(EventKind.PUBLISHER_BACK) == 1
        counted = stage.stream.snapshot().frames
        assert counted.encoded <= counted.received  # slates are not the publisher's frames
        assert stage.metrics.value("frames_fallback_total", kind="slate") >= 10
        second.end()
        await ended(done)


@in_virtual_time
async def test_a_publisher_that_does_not_answer_is_gone_and_resumes_without_a_new_session() -> None:
    async with live("ai", "bicubic", seconds=2.0, slate=slate) as stage:
        stage.publisher.absence = "the publisher does not answer"
        await asyncio.sleep(4.0)
        assert stage.stream.snapshot().state is StreamState.WAITING
        assert stage.stream.snapshot().reason == "the publisher does not answer"
        assert stage.viewer.sources.count("bicubic") >= 3  # the waiting card
        stage.publisher.absence = None
        again_s = stage.clock.now_s()
        await stream_frames(stage.publisher, stage.clock, 25, first_pts=1000 + 90_000 * 6)
        assert stage.stream.snapshot().state is StreamState.LIVE
        stage.viewer.assert_decodable()
        assert stage.viewer.sources[-1] == "ai"
        resumed = [t for t in stage.viewer.times_s if t >= again_s]
        assert resumed[0] - again_s < 0.5
        kinds = stage.kinds()
        assert kinds.count(EventKind.PUBLISHER_GONE) == kinds.count(EventKind.PUBLISHER_BACK) == 1


@in_virtual_time
async def test_quiet_is_not_gone_for_however_long() -> None:
    async with live("ai", "bicubic", seconds=2.0, slate=slate) as stage:
        shown = len(stage.viewer.frames)
        await asyncio.sleep(600.0)
        assert stage.stream.snapshot().state is StreamState.LIVE
        assert set(stage.viewer.sources) == {"ai"}
        assert len(stage.viewer.frames) <= shown + 1  # nothing is made up meanwhile
        await stream_frames(stage.publisher, stage.clock, 25, first_pts=90_000 * 602)
        assert stage.viewer.sources[-1] == "ai"
        stage.viewer.assert_decodable()
        kinds = stage.kinds()
        assert EventKind.PUBLISHER_GONE not in kinds
        assert EventKind.PUBLISHER_BACK not in kinds


@in_virtual_time
async def test_a_viewer_that_joins_a_still_picture_sees_it() -> None:
    async with live("ai", "bicubic", seconds=2.0, slate=slate) as stage:
        await asyncio.sleep(30.0)
        late = stage.watch()
        await until(lambda: bool(late.frames), within_s=1.5)
        late.assert_decodable()
        await asyncio.sleep(10.0)
        assert set(late.sources) == {"ai"}
        assert len(late.frames) <= 2
        stage.viewer.assert_decodable()
        assert stage.metrics.value("frames_repeated_total", reason="quiet") >= 1


@in_virtual_time
async def test_one_picture_each_two_and_a_half_seconds_is_a_live_stream() -> None:
    async with live("ai", "bicubic", seconds=1.0, slate=slate) as stage:
        states = set()
        for number in range(1, 9):
            await asyncio.sleep(2.5)
            states.add(stage.stream.snapshot().state)
            stage.publisher.push(frame(90_000 + number * 225_000, arrived_s=stage.clock.now_s()))
        await asyncio.sleep(1.0)
        assert states == {StreamState.LIVE}
        assert set(stage.viewer.sources) == {"ai"}
        assert len(stage.viewer.frames) >= 25 + 8


@in_virtual_time
async def test_a_publisher_that_answers_again_shows_its_last_picture_again() -> None:
    async with live("ai", "bicubic", seconds=2.0, slate=slate) as stage:
        stage.publisher.absence = "the publisher does not answer"
        await asyncio.sleep(5.0)
        assert stage.viewer.sources[-1] == "bicubic"
        stage.publisher.absence = None
        await asyncio.sleep(2.0)
        assert stage.stream.snapshot().state is StreamState.LIVE
        assert stage.viewer.sources[-1] == "ai"


@in_virtual_time
async def test_an_absence_ends_the_stream_after_its_time_and_quiet_does_not() -> None:
    async with live("ai", "bicubic", seconds=2.0, slate=slate) as stage:
        await asyncio.sleep(300.0)
        assert stage.stream.state is StreamState.LIVE
        stage.publisher.absence = "no picture could be decoded for 5 s"
        await asyncio.sleep(30.0)
        assert stage.stream.snapshot().state is StreamState.WAITING
        await asyncio.sleep(stage.stream.settings.waiting_s)
        assert stage.stream.ending
        assert stage.publisher.closed_with


@in_virtual_time
async def test_without_a_slate_the_last_picture_stays() -> None:
    async with live("ai", "bicubic", seconds=2.5) as stage:
        stage.publisher.absence = "the publisher does not answer"
        await asyncio.sleep(8.0)
        assert set(stage.viewer.sources) == {"ai"}
        assert not stage.viewer.cursor.closed


@in_virtual_time
async def test_a_slate_keeps_the_size_of_the_picture_before() -> None:
    sizes = list[Size]()

    def noted(size: Size, reason: str) -> Frame:
        assert reason == "the publisher does not answer"
        sizes.append(size)
        return dataclasses.replace(slate(size))

    async with live("ai", "bicubic", seconds=2.5, slate=noted) as stage:
        stage.publisher.absence = "the publisher does not answer"
        await asyncio.sleep(5.0)
        assert set(sizes) == {Size(16, 16)}
        pts = stage.viewer.pts
        assert all(a < b for a, b in itertools.pairwise(pts))


@in_virtual_time
async def test_a_publisher_without_one_decodable_picture_gets_the_slate_and_the_reason() -> None:
    shown = list[tuple[Size, str]]()

    def noted(size: Size, reason: str) -> Frame:
        shown.append((size, reason))
        return dataclasses.replace(slate(Size(16, 16)), size=size)

    why = "no picture could be decoded for 5 s"
    stage = Stage(("ai", "bicubic"), BASIC, noted)
    owner = asyncio.ensure_future(stage.stream.run())
    await settle()
    viewer = stage.watch()
    stage.publisher.absence = why
    done = asyncio.ensure_future(stage.stream.publish(stage.publisher))
    await asyncio.sleep(4.0)
    assert stage.stream.snapshot().state is StreamState.WAITING
    assert stage.stream.snapshot().reason == why
    assert set(shown) == {(USUAL, why)}
    assert set(viewer.sources) == {"bicubic"}
    # It mends itself: the picture follows in the same session, and is its first.
    stage.publisher.absence = None
    await stream_frames(stage.publisher, stage.clock, 25, first_pts=1000)
    assert stage.stream.snapshot().state is StreamState.LIVE
    assert viewer.sources[-1] == "ai"
    viewer.assert_decodable()
    assert EventKind.PUBLISHER_BACK not in stage.kinds()
    # And if it never does, the stream ends like that of any publisher that is gone.
    stage.publisher.absence = why
    await asyncio.sleep(70.0)
    assert stage.stream.snapshot().state is StreamState.CLOSED
    stage.publisher.end()
    await asyncio.wait([done])
    await ended(owner)
    await ended(viewer.task)
