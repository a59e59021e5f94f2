"""A backend: its states, its slots, and what it does when its model hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.engine.frames import frame, options
from tests.waiting import until

from streamlift.clock import MonotonicClock
from streamlift.engine import EngineBackend, left_behind
from streamlift.engine.backend import EXIT_STUCK
from streamlift.engine.lane import OTHERS_HANG_S, EngineLane
from streamlift.errors import NoCapacity, NotReady, OutOfMemory, UpscaleError, UpscalerHung
from streamlift.frames import BackendState, Size, Slots
from streamlift.upscalers.toy import Toy

Make = Callable[..., EngineBackend]
WHOLE_SLOT = Size(512, 512)


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """`make(upscaler, slots=..., settings=...)`: a backend that is closed at the end."""
    async with AsyncExitStack() as stack:

        def create(upscaler: str = "toy", **changes: Any) -> EngineBackend:
            backend = EngineBackend(
                "test",
                upscaler,
                preset="ultrafast",
                max_age_s=5.0,
                clock=MonotonicClock(),
                **{"settings": {}, **changes},
            )
            stack.push_async_callback(backend.aclose)
            return backend

        yield create


async def test_it_loads_measures_and_is_ready(make: Make) -> None:
    backend = make()
    before = backend.info()
    assert (before.state, before.fps, before.slots) == (BackendState.LOADING, None, Slots(0, 0))
    await backend.start()
    info = backend.info()
    assert (info.state, info.reason, info.device) == (BackendState.READY, "", "cpu")
    assert info.fps is not None
    assert info.fps > 0
    assert info.slots.total >= 1


async def test_slots_follow_from_the_measured_rate_and_never_are_none(make: Make) -> None:
    backend = make(settings={"delay_ms": 30})
    await backend.start()
    info = backend.info()
    assert info.fps is not None
    assert info.fps < 40
    assert info.slots.total == 1


async def test_no_lane_opens_before_it_is_ready(make: Make) -> None:
    backend = make()
    with pytest.raises(NotReady, match="loading"):
        await backend.open_lane(frame(0).size, options())
    await backend.start()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "cuda:9"}, "cuda:9"),
        ({"device": "[H100"}, "pattern"),
        ({"settings": {"speed": 1}}, "unknown toy setting"),
        ({"settings": {"first": 0}}, "chunk sizes"),
    ],
)
async def test_what_cannot_start_is_unavailable_with_the_reason(
    make: Make, changes: dict[str, Any], reason: str
) -> None:
    backend = make(**changes)
    await backend.start()
    info = backend.info()
    assert info.state is BackendState.UNAVAILABLE
    assert reason in info.reason
    with pytest.raises(NotReady, match="unavailable"):
        await backend.open_lane(frame(0).size, options())


async def test_an_unknown_upscaler_is_unavailable_too(make: Make) -> None:
    backend = make("no-such-model")
    await backend.start()
    assert "no-such-model" in backend.info().reason


async def test_slots_are_taken_and_given_back(make: Make) -> None:
    backend = make(slots=2)
    await backend.start()
    lanes = [await backend.open_lane(WHOLE_SLOT, options()) for _ in range(2)]
    assert backend.info().slots == Slots(2, 2)
    assert not backend.info().has_room
    with pytest.raises(NoCapacity, match="full"):
        await backend.open_lane(WHOLE_SLOT, options())
    await lanes[0].aclose()
    await lanes[0].aclose()
    assert backend.info().slots == Slots(2, 1)
    again = await backend.open_lane(WHOLE_SLOT, options())
    for lane in (lanes[1], again):
        await lane.aclose()
    assert backend.info().slots == Slots(2, 0)


async def test_small_streams_are_many_to_a_slot(make: Make) -> None:
    backend = make(slots=1)
    await backend.start()
    lanes = [await backend.open_lane(Size(128, 128), options()) for _ in range(3)]
    info = backend.info()
    assert (info.slots, info.has_room) == (Slots(1, 1), False), "no whole slot is free"
    for lane in lanes:
        await lane.aclose()


async def test_a_probe_passes_beside_a_lane_and_costs_no_slot(make: Make) -> None:
    backend = make(slots=2)
    await backend.start()
    await backend.probe()
    assert backend.info().slots == Slots(2, 0)


@pytest.mark.parametrize(
    ("knobs", "error"), [({"fail_at": 40}, UpscaleError), ({"oom_at": 40}, OutOfMemory)]
)
async def test_a_probe_finds_what_fails_after_a_while(
    make: Make, knobs: dict[str, Any], error: type[Exception]
) -> None:
    backend = make(settings=knobs)
    await backend.start()
    with pytest.raises(error):
        await backend.probe()


async def test_a_probe_that_hangs_says_so_and_leaves_its_thread_behind(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamlift.engine.backend._STUCK_S", 0.1)
    monkeypatch.setattr("streamlift.engine.backend._LONGEST_STEP_S", 0.1)
    backend = make(settings={"hang_at": 50, "hang_s": 30})
    await backend.start()
    with pytest.raises(TimeoutError):
        await backend.probe()
    assert left_behind()
    lane = await backend.open_lane(frame(0).size, options())
    lane.offer(frame(0, arrived_s=MonotonicClock().now_s()))
    assert (await anext(aiter(lane))).pts == 0
    await lane.aclose()
    assert isinstance(backend._upscaler, Toy)
    backend._upscaler.released.set()


async def test_in_a_worker_a_hang_ends_all_lanes_and_the_process(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr("streamlift.engine.backend.os._exit", status.set_result)
    backend, toy, stuck = await _hanging(make, monkeypatch, exits_when_stuck=True)
    other = await backend.open_lane(frame(0).size, options())
    backend.lane_hung(stuck)
    for lane in (stuck, other):
        with pytest.raises(UpscalerHung, match="does not return"):
            async for _ in lane:
                pass
    assert not status.done(), "what the lanes said goes out first"
    assert await asyncio.wait_for(status, 5) == EXIT_STUCK == 70
    toy.released.set()
    for lane in (stuck, other):
        await lane.aclose()


async def test_a_hung_model_is_left_behind_and_the_next_lane_works(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, toy, stuck = await _hanging(make, monkeypatch)
    backend.lane_hung(stuck)
    await stuck.aclose()
    assert left_behind()
    lane = await backend.open_lane(frame(0).size, options())
    lane.offer(frame(0, arrived_s=MonotonicClock().now_s()))
    assert (await anext(aiter(lane))).pts == 0
    await lane.aclose()
    assert backend._engine.busy_s < 1, "the new thread is not stuck"
    toy.released.set()
    await until(lambda: _threads() == 1, "the hung thread to end")


async def test_the_other_lanes_of_a_hung_model_go_on(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, toy, stuck = await _hanging(make, monkeypatch)
    other = await backend.open_lane(frame(0).size, options())
    other.offer(frame(0, arrived_s=MonotonicClock().now_s()))
    backend.lane_hung(stuck)
    assert (await anext(aiter(other))).pts == 0
    for lane in (stuck, other):
        await lane.aclose()
    toy.released.set()


async def test_on_a_gpu_a_hung_thread_has_a_second_to_come_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, toy, stuck = await _hanging(make, monkeypatch)
    backend._device = "cuda:0"
    backend.lane_hung(stuck)
    assert _threads() == 1
    await stuck.aclose()
    await until(lambda: _threads() == 2, "the thread to be left behind")
    toy.released.set()


async def test_a_lane_that_waits_behind_a_slow_one_costs_no_thread(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, toy, slow = await _hanging(make, monkeypatch)
    other = await backend.open_lane(frame(0).size, options())
    backend.lane_hung(other)
    assert _threads() == 1
    toy.released.set()
    for lane in (slow, other):
        await lane.aclose()


async def test_a_hung_lane_is_stuck_before_those_that_wait_behind_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, toy, stuck = await _hanging(make, monkeypatch)
    other = await backend.open_lane(frame(0).size, options())
    await until(lambda: other.stuck_s > 0.1, "it to count for the other as well")
    others_s = other.stuck_s
    assert stuck.stuck_s >= others_s + OTHERS_HANG_S
    backend.lane_hung(stuck)
    assert other.stuck_s == 0
    toy.released.set()
    for lane in (stuck, other):
        await lane.aclose()


async def test_a_hang_whose_stream_has_gone_is_noticed_too(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, toy, stuck = await _hanging(make, monkeypatch)
    await stuck.aclose()
    lane = await backend.open_lane(frame(0).size, options())
    lane.offer(frame(0, arrived_s=MonotonicClock().now_s()))
    assert (await anext(aiter(lane))).pts == 0
    await lane.aclose()
    toy.released.set()


async def test_closing_while_it_measures_a_slow_model_ends_the_measurement(make: Make) -> None:
    backend = make(settings={"delay_ms": 100, "first": 200})
    starting = asyncio.ensure_future(backend.start())
    await until(lambda: backend._engine.busy_s > 0.2, "the measurement to run")
    await backend.aclose()
    assert "engine-test" not in {t.name for t in threading.enumerate()}
    await starting
    assert backend.info().state is BackendState.UNAVAILABLE


async def test_closing_ends_its_thread(make: Make) -> None:
    backend = make()
    await backend.start()
    assert "engine-test" in {t.name for t in threading.enumerate()}
    await backend.aclose()
    assert "engine-test" not in {t.name for t in threading.enumerate()}


async def test_a_slow_step_of_one_lane_does_not_cost_it_its_engine_when_another_opens(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, toy, slow = await _hanging(make, monkeypatch)
    other = await backend.open_lane(frame(0).size, options())
    toy.released.set()
    slow.offer(frame(61, arrived_s=MonotonicClock().now_s()))
    other.offer(frame(0, arrived_s=MonotonicClock().now_s()))
    async with asyncio.timeout(5):
        async for encoded in slow:
            if encoded.pts == frame(61).pts:
                break
        assert (await anext(aiter(other))).pts == 0
    for lane in (slow, other):
        await lane.aclose()


async def test_a_lane_that_cannot_be_opened_costs_no_slot(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(slots=2)
    await backend.start()

    def no_thread(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("streamlift.engine.lane.EncodeThread", no_thread)
    with pytest.raises(RuntimeError):
        await backend.open_lane(frame(0).size, options())
    assert backend.info().slots == Slots(2, 0)


def _threads() -> int:
    return sum(thread.name == "engine-test" for thread in threading.enumerate())


async def _hanging(
    make: Make, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[EngineBackend, Toy, EngineLane]:
    """A backend whose only lane's 61st frame takes until the toy is released."""
    monkeypatch.setattr("streamlift.engine.backend._STUCK_S", 0.1)
    # The capacity probe takes some frames of its own: hang later than that.
    backend = make(slots=2, settings={"hang_at": 60, "hang_s": 30}, **changes)
    await backend.start()
    toy = backend._upscaler
    assert isinstance(toy, Toy)
    lane = await backend.open_lane(frame(0).size, options())
    for number in range(61):
        lane.offer(frame(number, arrived_s=MonotonicClock().now_s()))
        await until(lambda: not lane._inbox, "the model to take it")
    await until(lambda: backend._engine.busy_s > 0.1, "the model to hang")
    return backend, toy, lane


async def test_a_stream_that_leaves_no_room_to_compute_in_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(slots=4)
    await backend.start()
    monkeypatch.setattr(Toy, "session_bytes", lambda self, size: 6 * size.pixels)
    monkeypatch.setattr(Toy, "workspace_bytes", lambda self, size: 5 * size.pixels, raising=False)
    free = {"bytes": 11 * WHOLE_SLOT.pixels}
    monkeypatch.setattr("streamlift.engine.backend.free_memory", lambda device: free["bytes"])
    lane = await backend.open_lane(WHOLE_SLOT, options())
    await lane.aclose()
    free["bytes"] -= 1
    with pytest.raises(NoCapacity, match="no memory"):
        await backend.open_lane(WHOLE_SLOT, options())
    smaller = await backend.open_lane(Size(256, 256), options())
    await smaller.aclose()
