"""The life of a pull, with sources that are a few lines of test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.serving import until

from streamlift.clock import ManualClock
from streamlift.errors import ConfigError, MediaError, StreamliftError
from streamlift.media.remote.line import Line
from streamlift.media.remote.pull import (
    PullPublisher,
    PullState,
    SourceBusy,
    SourceEnded,
    SourceRefused,
)
from streamlift.media.remote.pulled import Pulled


def test_pts_keep_their_spacing_and_a_jump_of_over_a_second_goes_on_by_arrival() -> None:
    line = Line()
    placed = [line.place(1_000_000 + i * 3600, i / 25) for i in range(5)]
    placed.append(line.place(9_000_000, 5 / 25))
    placed.append(line.place(9_003_600, 6 / 25))
    placed.append(line.place(40, 7 / 25))
    assert placed == [i * 3600 for i in range(8)]
    assert line.jumps == 2


def test_a_gap_that_really_passed_is_no_jump() -> None:
    line = Line()
    assert [line.place(0, 0.0), line.place(450_000, 5.0)] == [0, 450_000]
    assert line.jumps == 0


class Failing:
    """A source that never comes about: raises what it was given, one after the other."""

    kind = "test"
    doing = ""
    first_frame_s = stall_s = 1.0

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.opened = 0

    def describe(self) -> Mapping[str, Any]:
        return {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Pulled]:
        self.opened += 1
        raise self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]
        yield  # type: ignore[unreachable]  # makes this a generator


class Naps:
    """Sleeps that take no time but a turn of the loop; their lengths are remembered."""

    def __init__(self, clock: ManualClock, at_most: int) -> None:
        self.lengths: list[float] = []
        self._clock = clock
        self._at_most = at_most

    async def __call__(self, seconds: float) -> None:
        if len(self.lengths) >= self._at_most:
            await asyncio.Event().wait()
        self.lengths.append(seconds)
        self._clock.advance(seconds)
        await asyncio.sleep(0)


async def pulling(source: Failing, naps: int = 10) -> tuple[PullPublisher, list[float]]:
    """Let it try so often, then close it if it has not ended by itself."""
    clock = ManualClock()
    sleep = Naps(clock, naps)
    pull = PullPublisher("mine", source, clock=clock, sleep=sleep)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(pull.run())
        await until(lambda: running.done() or len(sleep.lengths) >= naps, "the tries")
        await pull.aclose("enough")
    return pull, sleep.lengths


@pytest.mark.parametrize("error", [SourceRefused("401: no"), ConfigError("not allowed")])
async def test_a_refusal_ends_the_pull_and_its_reason_can_be_read(error: Exception) -> None:
    source = Failing(error)
    pull, waits = await pulling(source)
    assert pull.status.state is PullState.FAILED
    assert pull.status.reason == str(error)
    assert (source.opened, waits) == (1, [])


async def test_a_file_that_is_over_closes_the_pull() -> None:
    pull, waits = await pulling(Failing(SourceEnded("clip.mp4 is over")))
    assert (pull.status.state, pull.status.reason) == (PullState.CLOSED, "clip.mp4 is over")
    assert waits == []


async def test_after_a_refusal_the_frames_end() -> None:
    pull, _ = await pulling(Failing(SourceRefused("no")))
    assert [frame async for frame in pull] == []


@pytest.mark.parametrize("error", [MediaError("x"), StreamliftError("y"), ZeroDivisionError()])
async def test_anything_else_is_tried_again_for_ever(error: Exception) -> None:
    source = Failing(error)
    pull, waits = await pulling(source, naps=10)
    assert len(waits) == 10
    assert pull.status.state is PullState.CLOSED
    assert pull.status.reason == "enough"


async def test_too_many_viewers_is_asked_again_every_two_seconds() -> None:
    _, waits = await pulling(Failing(SourceBusy("full", retry_s=2.0)), naps=18)
    assert waits[:15] == [2.0] * 15
    assert waits[15:] == [1, 2, 4]
