"""What a stream under policy auto does when its backend falls behind."""

from __future__ import annotations

import asyncio

from tests.routing.fakes import FakeLane
from tests.routing.stage import Stage, live
from tests.routing.virtual_time import in_virtual_time

from streamlift.routing.events import EventKind
from streamlift.routing.policy import Policy


@in_virtual_time
async def test_a_lane_takes_its_own_cheaper_ways_before_another_backend_is_asked() -> None:
    async with live("compact", "bicubic") as stage:
        lane = _under_auto(stage)
        lane.can_spend_less = True
        await _dropping(stage, 8.0)
        assert stage.stream.backend == "compact"
        lane.can_spend_less = False
        await _dropping(stage, 6.0)
        (step,) = stage.log(EventKind.POLICY_STEP)
        assert (step.before, step.after) == ("compact", "bicubic")
        await asyncio.sleep(2.0)
        assert stage.stream.backend == "bicubic"


@in_virtual_time
async def test_drops_that_the_lane_mended_itself_are_forgotten() -> None:
    async with live("compact", "bicubic") as stage:
        lane = _under_auto(stage)
        lane.can_spend_less = True
        await _dropping(stage, 4.0)
        lane.can_spend_less = False
        await _dropping(stage, 1.0)
        await asyncio.sleep(10.0)
        assert stage.log(EventKind.POLICY_STEP) == []


@in_virtual_time
async def test_a_fixed_backend_is_left_alone_however_it_falls_behind() -> None:
    async with live("compact", "bicubic") as stage:
        _learn_speeds(stage)
        await _dropping(stage, 10.0)
        assert stage.stream.backend == "compact"


def _under_auto(stage: Stage) -> FakeLane:
    _learn_speeds(stage)
    stage.stream.set_policy(Policy.AUTO)
    return stage.backends["compact"].lanes[-1]


def _learn_speeds(stage: Stage) -> None:
    for name, fps in (("compact", 60.0), ("bicubic", 900.0)):
        stage.backends[name].upscaler, stage.backends[name].fps = name, fps


async def _dropping(stage: Stage, seconds: float) -> None:
    """The lane that is first now drops a fifth of its frames for so long."""
    lane = stage.backends["compact"].lanes[-1]
    for _ in range(int(seconds * 5)):
        lane.dropped["stale"] += 1
        await asyncio.sleep(0.2)
