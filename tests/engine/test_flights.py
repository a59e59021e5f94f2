"""Several streams on one device: launched in turns by deadline, and none waits for another's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import pytest
from tests.engine.frames import SMALL, frame, options
from tests.waiting import until

from streamlift.clock import ManualClock, MonotonicClock
from streamlift.engine.capacity import SLOT_PPS, Capacity
from streamlift.engine.cuda_stream import CudaPriority, take_stream
from streamlift.engine.engine import Engine
from streamlift.engine.lane import EngineLane
from streamlift.frames import EncodedFrame, Planes, Size, Stabilise

WAIT_S = 10.0
CHUNK_S = 0.1


class Card:
    """A device that does one thing after the other, in virtual time: a look at it takes 1 ms."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.free_s = clock.now_s()

    def launch(self, takes_s: float) -> Flight:
        self.free_s = max(self.free_s, self.clock.now_s()) + takes_s
        return Flight(self, self.free_s)


class Flight:
    def __init__(self, card: Card, done_s: float) -> None:
        self._card, self._done_s = card, done_s

    @property
    def ready(self) -> bool:
        self._card.clock.advance(0.001)
        return self._card.clock.now_s() >= self._done_s


class Lane:
    """Chunks with the times when they were due; `more` gives it another one each time."""

    guest = False

    def __init__(
        self,
        name: str,
        card: Card,
        due_s: list[float],
        events: list[str],
        *,
        takes_s: float = CHUNK_S,
        more: bool = False,
    ) -> None:
        self.name, self._card, self._due_s, self._events = name, card, due_s, events
        self._takes_s, self._more = takes_s, more
        self.flight: Flight | None = None
        self.at_s: list[float] = []
        self.done = threading.Event()

    @property
    def waiting_since_s(self) -> float | None:
        return self._due_s[0] if self._due_s else None

    @property
    def due_s(self) -> float:
        return self._due_s[0]

    def step(self) -> None:
        if self.flight is None:
            due_s = self._due_s.pop(0)
            if self._more:
                self._due_s.append(due_s)
            self._events.append(f"{self.name} launched")
            self.flight = self._card.launch(self._takes_s)
            return
        self.flight = None
        self._events.append(f"{self.name} collected")
        self.at_s.append(self._card.clock.now_s())
        if not self._due_s:
            self.done.set()


def _engine(clock: ManualClock) -> Engine:
    engine = Engine("test", clock)
    engine.leeway_s = 0.25
    return engine


def _run(engine: Engine, *lanes: Lane, until: Lane | None = None) -> None:
    for lane in lanes:
        engine.attach(lane)
    engine.start()
    for lane in lanes if until is None else (until,):
        assert lane.done.wait(WAIT_S)
    assert engine.stop()


def test_a_lane_is_launched_while_the_device_works_for_another_one() -> None:
    clock, events = ManualClock(), list[str]()
    card = Card(clock)
    _run(_engine(clock), Lane("a", card, [1.0], events), Lane("b", card, [2.0], events))
    assert events == ["a launched", "b launched", "a collected", "b collected"]


def test_the_most_urgent_chunk_is_next_and_two_at_most_are_on_the_device() -> None:
    clock, events = ManualClock(), list[str]()
    card = Card(clock)
    lanes = [
        Lane(name, card, [due_s], events)
        for name, due_s in zip("abcd", (1.0, 2.0, 4.0, 3.5), strict=True)
    ]
    _run(_engine(clock), *lanes)
    assert [event for event in events if "launched" in event] == [
        f"{name} launched" for name in "abdc"
    ]
    assert events.index("a collected") < events.index("d launched") < events.index("b collected")


def test_the_device_is_never_idle_while_two_lanes_have_work() -> None:
    clock, events = ManualClock(), list[str]()
    card = Card(clock)
    lanes = [Lane(name, card, [1.0] * 10, events) for name in "ab"]
    _run(_engine(clock), *lanes)
    assert max(lane.at_s[-1] for lane in lanes) < 20 * CHUNK_S + 0.05
    assert [lane.at_s[4] for lane in lanes] == pytest.approx([0.9, 1.0], abs=0.05)


def test_urgency_goes_no_further_than_a_lanes_share_of_the_device() -> None:
    clock, events = ManualClock(), list[str]()
    card = Card(clock)
    # Always late, and always first by their deadlines: alone these two would fill the device.
    greedy = [Lane(f"greedy {n}", card, [-100.0] * 2, events, more=True) for n in range(2)]
    modest = Lane("modest", card, [float(n) for n in range(20)], events)
    _run(_engine(clock), *greedy, modest, until=modest)
    before_s = [later - earlier for earlier, later in pairwise(modest.at_s)]
    assert max(before_s) < 0.25 + 4 * CHUNK_S
    assert 20 < sum("greedy" in event and "launched" in event for event in events) < 60


def test_a_device_that_hangs_is_told_like_a_thread_that_does() -> None:
    clock, events = ManualClock(), list[str]()
    card, engine = Card(clock), _engine(clock)
    stuck = Lane("stuck", card, [1.0], events, takes_s=1e9)
    other = Lane("other", Card(clock), [2.0], events)
    engine.attach(stuck)
    engine.start()
    _wait_for(lambda: engine.busy_s > 5)
    told = [(engine.steps(stuck), engine.abandoned)]
    engine.detach(stuck)
    told.append((engine.steps(stuck), engine.abandoned))
    engine.leave_behind()
    told.append((engine.steps(stuck), engine.abandoned))
    assert told == [(True, False), (True, True), (False, False)]
    engine.attach(other)
    with engine.changed:
        engine.changed.notify_all()
    assert other.done.wait(WAIT_S)
    assert engine.stop()


def test_what_a_closed_lane_has_launched_is_waited_for_and_thrown_away() -> None:
    clock, events = ManualClock(), list[str]()
    card, engine = Card(clock), _engine(clock)
    closed, other = (Lane(name, card, [1.0], events) for name in ("closed", "other"))
    engine.attach(closed)
    engine.start()
    _wait_for(lambda: "closed launched" in events)
    engine.detach(closed)
    engine.attach(other)
    with engine.changed:
        engine.changed.notify_all()
    assert other.done.wait(WAIT_S)
    assert events == ["closed launched", "other launched", "other collected"]
    assert engine.busy_s == 0.0
    assert engine.stop()


async def test_two_streams_never_wait_for_each_others_download() -> None:
    """Two lanes as they are; the first one's pictures never arrive in host memory."""
    pytest.importorskip("torch", reason="RGB models need torch")
    never, always = threading.Event(), threading.Event()
    always.set()
    clock = MonotonicClock()
    engine = Engine("test", clock)
    engine.leeway_s = 0.25
    engine.start()
    async with AsyncExitStack() as stack:
        slow, quick = (_lane(engine, arrived) for arrived in (never, always))
        stack.push_async_callback(slow.aclose)
        stack.push_async_callback(quick.aclose)
        assert slow.offer(_now(clock, 0))
        for number in range(10):
            assert quick.offer(_now(clock, number))
            async with asyncio.timeout(WAIT_S):
                coded = await anext(aiter(quick))
            assert isinstance(coded, EncodedFrame)
        await until(lambda: engine.steps(slow), "the device to be busy for the first one only")
        assert slow.upscaled == 0
        never.set()
        async with asyncio.timeout(WAIT_S):
            assert isinstance(await anext(aiter(slow)), EncodedFrame)
    assert engine.stop()


def _lane(engine: Engine, arrived: threading.Event) -> EngineLane:
    from streamlift.engine.rgb import RgbWay
    from streamlift.engine.yuv import begin_download

    class Held:
        """A download that may not be waited for before `arrived`."""

        def __init__(self, packed: Any, size: Size) -> None:
            self._download = begin_download(packed, size)

        @property
        def ready(self) -> bool:
            return arrived.is_set()

        @property
        def finite(self) -> bool:
            return self._download.finite

        def wait(self) -> list[Planes]:
            assert self.ready, "the engine's thread would have waited for the device"
            return self._download.wait()

    lane = EngineLane(
        engine,
        _Doubles(),
        "cpu",
        options(),
        preset="ultrafast",
        max_age_s=60.0,
        clock=MonotonicClock(),
        stabilise=Stabilise.OFF,
        share=Capacity(2 * SLOT_PPS).take(SLOT_PPS),
        on_close=lambda _: None,
    )
    held: Any = Held
    lane._chain._rgb = RgbWay("cpu", launch_all=True, download=held)
    return lane


class _Doubles:
    """A model in RGB that is its own session."""

    wanted = 1

    def __init__(self) -> None:
        from streamlift.upscalers.base import Pixels, UpscalerSpec

        self.spec = UpscalerSpec("doubles", 2, pixels=Pixels.RGB)

    def session_bytes(self, size: Size) -> int:
        return 0

    def open(self, size: Size, *, seed: int = 0) -> Any:
        return self

    def push(self, lr: Any) -> Iterator[Any]:
        import torch

        yield torch.nn.functional.interpolate(lr, scale_factor=2.0)

    def finish(self) -> Iterator[Any]:
        yield from ()


def _now(clock: MonotonicClock, number: int) -> Any:
    return frame(number, arrived_s=clock.now_s(), size=SMALL)


def _wait_for(check: Any) -> None:
    waited = threading.Event()
    for _ in range(1000):
        if check():
            return
        waited.wait(WAIT_S / 1000)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize(
    ("priority", "expected"),
    [(CudaPriority.DEFAULT, None), (CudaPriority.LOW, 0), (CudaPriority.HIGH, -5)],
)
def test_a_stream_of_the_chosen_priority_becomes_the_threads_own(
    monkeypatch: pytest.MonkeyPatch, priority: CudaPriority, expected: int | None
) -> None:
    torch = pytest.importorskip("torch")
    taken: list[Any] = []

    class Stream:
        def __init__(self, device: str, priority: int) -> None:
            self.device, self.priority = device, priority

        @staticmethod
        def priority_range() -> tuple[int, int]:
            return 0, -5

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "set_stream", taken.append)
    take_stream("cpu", priority)
    assert taken == []
    take_stream("cuda:1", priority)
    assert [(s.device, s.priority) for s in taken] == (
        [] if expected is None else [("cuda:1", expected)]
    )
