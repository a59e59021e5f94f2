"""A lane whose place is about to go is followed by one on the same backend, unseen."""

from __future__ import annotations

import asyncio

from tests.routing.stage import Stage, live
from tests.routing.virtual_time import in_virtual_time

from streamlift.frames import BackendState
from streamlift.routing.events import EventKind

FRAME = 3600


def whole(stage: Stage) -> bool:
    stage.viewer.assert_decodable()
    return stage.viewer.pts == [n * FRAME for n in range(len(stage.viewer.pts))]


@in_virtual_time
async def test_a_leaving_lane_is_followed_by_another_on_its_backend_without_a_gap() -> None:
    async with live("ai", "bicubic") as stage:
        (leaving,) = stage.backends["ai"].lanes
        leaving.leaving = True
        await asyncio.sleep(3.0)
        assert len(stage.backends["ai"].lanes) == 2
        assert leaving.closed
        assert stage.backends["bicubic"].lanes == []
        told = stage.stream.snapshot()
        assert (told.backend, told.degraded) == ("ai", False)
        assert whole(stage)
        assert max(stage.viewer.gaps()) < 0.08
        assert stage.kinds().count(EventKind.SWITCHED) == 1
        assert stage.kinds().count(EventKind.FAULT) == 0


@in_virtual_time
async def test_a_lane_that_cannot_be_followed_stays_until_it_ends() -> None:
    async with live("ai", "bicubic") as stage:
        (leaving,) = stage.backends["ai"].lanes
        stage.backends["ai"].state = BackendState.UNAVAILABLE
        leaving.leaving = True
        await asyncio.sleep(3.0)
        assert stage.backends["ai"].lanes == [leaving]
        assert not leaving.closed
        assert whole(stage)
