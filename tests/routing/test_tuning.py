"""Another target size in mid-stream: told, counted, and taken back if it does not come."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from tests.routing.stage import Stage, live
from tests.routing.virtual_time import in_virtual_time

from streamlift.errors import UnsupportedSize
from streamlift.frames import Size, Target
from streamlift.routing.events import Event, EventKind
from streamlift.routing.tuning import GIVEN_UP_S, Change

LARGE = Target(scale=3)
OTHER = Target(size=Size(64, 64))
FRAME_S = 0.04


def told(stage: Stage) -> list[Event]:
    kinds = (EventKind.SWITCH_STARTED, EventKind.SWITCHED, EventKind.SWITCH_ABORTED)
    return [event for event in stage.log() if event.kind in kinds]


def targets(stage: Stage) -> list[Target | None]:
    """As they followed each other at the viewer."""
    seen = [one.rendition.target for one in stage.viewer.frames]
    return [seen[0], *(b for a, b in pairwise(seen) if a != b)]


def retarget(stage: Stage, target: Target | None) -> None:
    stage.stream.change(Change(retarget=True, target=target))


@in_virtual_time
async def test_a_change_is_told_as_a_switch_and_loses_no_picture() -> None:
    async with live("fake") as stage:
        before = len(stage.viewer.frames)
        retarget(stage, LARGE)
        assert stage.stream.snapshot().target == LARGE
        await asyncio.sleep(1.0)
        started, switched = told(stage)
        assert (started.kind, started.before, started.after) == ("switch.started", "fake", "fake")
        assert (switched.kind, switched.before, switched.after) == ("switched", "fake", "fake")
        assert started.reason == "target 3 times 16x16: 48x48"
        assert switched.gap_ms == pytest.approx(1000 * FRAME_S, abs=1)
        assert targets(stage) == [None, LARGE]
        assert len(stage.viewer.frames) - before == 25
        assert len(stage.backends["fake"].lanes) == 1
        assert (
            stage.metrics.value(
                "backend_switch_total", **{"from": "fake", "to": "fake", "result": "ok"}
            )
            == 1
        )


@in_virtual_time
async def test_null_goes_back_to_the_backends_own() -> None:
    async with live("fake") as stage:
        for target in (LARGE, None, OTHER, None):
            retarget(stage, target)
            await asyncio.sleep(0.5)
        assert targets(stage) == [None, LARGE, None, OTHER, None]
        assert [event.kind for event in told(stage)] == ["switch.started", "switched"] * 4
        assert stage.stream.snapshot().target is None


@in_virtual_time
async def test_the_same_target_again_is_no_change() -> None:
    async with live("fake") as stage:
        retarget(stage, None)
        retarget(stage, LARGE)
        await asyncio.sleep(0.5)
        retarget(stage, LARGE)
        assert len(told(stage)) == 2


@in_virtual_time
async def test_a_size_that_does_not_come_is_taken_back() -> None:
    async with live("fake", fps=5.0) as stage:
        stage.backends["fake"].lanes[0].refuses = frozenset({LARGE})
        retarget(stage, LARGE)
        await asyncio.sleep(GIVEN_UP_S - 0.5)
        assert [event.kind for event in told(stage)] == ["switch.started"]
        await asyncio.sleep(1.0)
        _, aborted = told(stage)
        assert aborted.kind == "switch.aborted"
        assert "no such picture within 10 s" in aborted.reason
        assert targets(stage) == [None]
        assert stage.stream.snapshot().target is None
        assert {r.target for r in stage.backends["fake"].lanes[0].wanted} == {None}
        assert max(stage.viewer.gaps()) == pytest.approx(0.2, abs=0.001)
        assert (
            stage.metrics.value(
                "backend_switch_total", **{"from": "fake", "to": "fake", "result": "aborted"}
            )
            == 1
        )


@in_virtual_time
async def test_of_two_requests_the_last_one_wins_and_what_was_shown_is_what_is_taken_back_to() -> (
    None
):
    async with live("fake", fps=5.0) as stage:
        stage.backends["fake"].lanes[0].refuses = frozenset({LARGE, OTHER})
        retarget(stage, LARGE)
        await asyncio.sleep(1.0)
        retarget(stage, OTHER)
        await asyncio.sleep(GIVEN_UP_S + 1.0)
        kinds = [event.kind for event in told(stage)]
        assert kinds == ["switch.started", "switch.aborted", "switch.started", "switch.aborted"]
        assert stage.stream.snapshot().target is None


@in_virtual_time
async def test_without_a_picture_the_target_holds_for_the_next_one() -> None:
    async with live("fake", seconds=2.0) as stage:
        await asyncio.sleep(4.0)
        retarget(stage, LARGE)
        started, switched = told(stage)
        assert (started.kind, switched.kind) == ("switch.started", "switched")
        assert (switched.gap_ms, switched.reason[-16:]) == (None, "; no picture now")
        await asyncio.sleep(2 * GIVEN_UP_S)
        assert len(told(stage)) == 2
        assert stage.stream.snapshot().target == LARGE


@in_virtual_time
async def test_a_backend_that_is_switched_to_gives_the_target_from_its_first_picture_on() -> None:
    async with live("fake", "other") as stage:
        retarget(stage, LARGE)
        await asyncio.sleep(0.5)
        stage.stream.switch("other")
        await asyncio.sleep(2.0)
        assert stage.viewer.sources[-1] == "other"
        assert targets(stage) == [None, LARGE]


@in_virtual_time
async def test_what_the_publishers_picture_should_not_become_changes_nothing() -> None:
    async with live("fake") as stage:
        change = Change(bitrate_bps=200_000, retarget=True, target=Target(size=Size(640, 640)))
        with pytest.raises(UnsupportedSize, match="40 times"):
            stage.stream.change(change)
        assert told(stage) == []
        snapshot = stage.stream.snapshot()
        assert snapshot.target is None
        assert {r.bitrate_bps for r in snapshot.output.renditions} == {6_000_000}


@in_virtual_time
async def test_the_bit_rate_is_changed_beside_it() -> None:
    async with live("fake") as stage:
        stage.stream.change(Change(bitrate_bps=200_000, retarget=True, target=LARGE))
        stage.stream.change(Change(bitrate_bps=300_000))
        (rendition,) = stage.backends["fake"].lanes[0].wanted
        assert (rendition.bitrate_bps, rendition.target) == (300_000, LARGE)
