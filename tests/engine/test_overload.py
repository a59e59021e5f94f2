"""Laws of overload in virtual time: it costs frames, evenly, and never delay.

A lane's inbox with a model and an encoder that take set times, each one frame after another, as
the engine's and the encoder's threads do.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.clips import picture

from streamlift.clock import VIDEO_CLOCK_HZ, ManualClock
from streamlift.engine.capacity import Capacity, need_pps
from streamlift.engine.inbox import Inbox
from streamlift.frames import Colour, Frame, Size
from streamlift.timeline import Timeline

SIZE = Size(128, 128)
PLANES = picture(SIZE, 0)
FPS = 25.0
P95_S = 0.15
Seconds = float | Callable[[float], float]


@dataclass
class Lane:
    """One stream's inbox and encoder; what it delivered, as arrival, delivery and pts."""

    inbox: Inbox
    model_s: Callable[[float], float]
    encode_s: Callable[[float], float]
    line: Timeline = field(default_factory=Timeline)
    coding: deque[tuple[Frame, float]] = field(default_factory=deque)
    encodes: bool = False
    had_s: float = 0.0
    shown: list[tuple[float, float, int]] = field(default_factory=list)
    longest_queue: int = 0
    sent: int = 0

    def arrive(self, pts: int, now_s: float) -> None:
        self.sent += 1
        placed = self.line.place(pts, now_s)
        self.inbox.put(
            Frame(placed, SIZE, PLANES, Colour(), arrived_s=now_s, due_s=self.line.due_s)
        )

    def delays_s(self, after_s: float = 0.0) -> list[float]:
        return sorted(done - arrived for arrived, done, _ in self.shown if arrived >= after_s)


class Machine:
    """One engine that gives its lanes turns by the time they have had, and an encoder for each."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.lanes: list[Lane] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._busy = False

    def lane(self, model_s: Seconds, encode_s: Seconds = 0.0, *, chunk: int = 1) -> Lane:
        share = Capacity(1e12).take(need_pps(SIZE, FPS))
        inbox = Inbox(self.clock, share=share, fps=FPS, max_age_s=0.5, chunk=chunk)
        self.lanes.append(Lane(inbox, _at(model_s), _at(encode_s)))
        return self.lanes[-1]

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when_s, self._number, what))

    def publish(self, lane: Lane, arrivals: Iterable[tuple[float, int]]) -> None:
        for when_s, pts in arrivals:
            self.at(when_s, lambda pts=pts: self._arrive(lane, pts))  # type: ignore[misc]

    def run(self) -> None:
        while self._events:
            when_s, _, what = heapq.heappop(self._events)
            self.clock.advance(max(0.0, when_s - self.clock.now_s()))
            what()

    def _arrive(self, lane: Lane, pts: int) -> None:
        lane.arrive(pts, self.clock.now_s())
        self._next()

    def _next(self) -> None:
        waiting = [lane for lane in self.lanes if len(lane.inbox)]
        if self._busy or not waiting:
            return
        lane = min(waiting, key=lambda one: one.had_s)
        now_s = self.clock.now_s()
        if (frame := lane.inbox.take()) is None:
            self._next()
            return
        self._busy, took_s = True, lane.model_s(now_s)
        lane.had_s += took_s
        self.at(now_s + took_s, lambda: self._modelled(lane, frame))

    def _modelled(self, lane: Lane, frame: Frame) -> None:
        self._busy = False
        lane.inbox.done()
        lane.coding.append((frame, self.clock.now_s()))
        lane.longest_queue = max(lane.longest_queue, len(lane.coding))
        self._encode_next(lane)
        self._next()

    def _encode_next(self, lane: Lane) -> None:
        while lane.coding and not lane.encodes:
            frame, ready_s = lane.coding.popleft()
            now_s = self.clock.now_s()
            if lane.inbox.encoder_overdue(now_s - frame.late_after_s - lane.model_s(ready_s)):
                lane.encodes = True
                encoded = partial(self._encoded, lane, frame, ready_s)
                self.at(now_s + lane.encode_s(now_s), encoded)

    def _encoded(self, lane: Lane, frame: Frame, ready_s: float) -> None:
        lane.encodes = False
        lane.inbox.encoders.note(ready_s, self.clock.now_s())
        lane.shown.append((frame.arrived_s, self.clock.now_s(), frame.pts))
        self._encode_next(lane)


def _at(seconds: Seconds) -> Callable[[float], float]:
    """What a frame takes at a moment."""
    return seconds if callable(seconds) else lambda _: seconds


def even(seconds: float, fps: float = FPS) -> list[tuple[float, int]]:
    return [(n / fps, round(n * VIDEO_CLOCK_HZ / fps)) for n in range(int(seconds * fps))]


def bursts(sizes: Sequence[int], seconds: float) -> list[tuple[float, int]]:
    """Bursts of these sizes in turn; each comes when its last frame was made."""
    arrivals: list[tuple[float, int]] = []
    while len(arrivals) < seconds * FPS:
        for size in sizes:
            last = len(arrivals) + size - 1
            arrivals += [
                (last / FPS, round(n * VIDEO_CLOCK_HZ / FPS))
                for n in range(len(arrivals), last + 1)
            ]
    return arrivals


def p95(values: Sequence[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


@settings(max_examples=25)
@given(st.floats(0.041, 0.08), st.floats(0.0, 0.02))
def test_an_even_publisher_is_never_late_under_any_overload(
    model_s: float, encode_s: float
) -> None:
    """Where one frame's own work leaves room for it within the 150 ms."""
    machine = Machine()
    lane = machine.lane(model_s, encode_s)
    machine.publish(lane, even(25))
    machine.run()
    assert p95(lane.delays_s()) < P95_S


@settings(max_examples=20)
@given(st.floats(0.001, 0.02), st.floats(0.041, 0.065))
def test_an_encoder_that_is_too_slow_costs_frames_and_not_delay(
    model_s: float, encode_s: float
) -> None:
    machine = Machine()
    lane = machine.lane(model_s, encode_s)
    machine.publish(lane, even(25))
    machine.run()
    assert p95(lane.delays_s()) < P95_S


@settings(max_examples=20)
@given(st.floats(0.042, 0.06), st.floats(0.2, 0.45))
def test_what_stands_before_a_stalled_encoder_is_not_worked_off_one_by_one(
    encode_s: float, stall_s: float
) -> None:
    """Too slow and, every three seconds, starved for a while by others."""
    machine = Machine()
    lane = machine.lane(0.01, lambda now_s: stall_s if now_s % 3.0 < 0.05 else encode_s)
    machine.publish(lane, even(30))
    machine.run()
    delays_s = [(done, done - arrived) for arrived, done, _ in lane.shown if arrived > 3.0]
    calm = [delay_s for done, delay_s in delays_s if done % 3.0 > stall_s + 0.05 + 3 * encode_s]
    assert max(calm) < P95_S
    assert lane.sent == len(lane.shown) + lane.inbox.dropped.total()
    assert len(lane.shown) > 0.6 * 30 * (3.0 - stall_s) / 3.0 / encode_s


@settings(max_examples=20)
@given(st.floats(0.041, 0.1))
def test_nearly_all_that_the_machine_can_do_is_shown_and_evenly(model_s: float) -> None:
    machine = Machine()
    lane = machine.lane(model_s)
    machine.publish(lane, even(25))
    machine.run()
    settled = [pts for arrived_s, _, pts in lane.shown if arrived_s >= 5.0]
    assert len(settled) / 20.0 > 0.8 / model_s
    steps = [round((b - a) * FPS / VIDEO_CLOCK_HZ) for a, b in pairwise(settled)]
    assert max(steps) <= min(steps) + 2


@pytest.mark.parametrize("sizes", [(9, 12), (12,), (24,), (1, 12)])
@settings(max_examples=8)
@given(model_s=st.floats(0.005, 0.0395), encode_s=st.floats(0.0, 0.0395))
def test_bursts_at_a_mean_rate_that_fits_lose_nothing(
    sizes: Sequence[int], model_s: float, encode_s: float
) -> None:
    machine = Machine()
    lane = machine.lane(model_s, encode_s)
    machine.publish(lane, bursts(sizes, 20))
    machine.run()
    assert lane.inbox.dropped == {}
    assert len(lane.shown) == lane.sent


def test_an_overload_that_ends_costs_nothing_more() -> None:
    machine = Machine()
    lane = machine.lane(lambda now_s: 0.08 if 10 <= now_s < 20 else 0.02)
    machine.publish(lane, even(30))
    machine.run()
    shown = [arrived_s for arrived_s, _, _ in lane.shown]
    assert len([s for s in shown if s < 9.9]) == len([n for n in even(30) if n[0] < 9.9])
    assert len([s for s in shown if s > 21.0]) == len([n for n in even(30) if n[0] > 21.0])


def test_a_stall_that_the_lane_catches_up_with_costs_nothing() -> None:
    machine = Machine()
    lane = machine.lane(lambda now_s: 0.28 if 5 <= now_s < 5.1 else 0.015)
    machine.publish(lane, even(10))
    machine.run()
    assert lane.inbox.dropped == {}


def test_first_frames_that_take_long_say_nothing_of_the_rest() -> None:
    """A model that runs for the first time, and an encoder that opens."""
    machine = Machine()
    lane = machine.lane(lambda now_s: 0.2 if now_s < 0.25 else 0.026, 0.01)
    machine.publish(lane, even(10))
    machine.run()
    assert lane.inbox.dropped == {}


@settings(max_examples=20)
@given(st.integers(2, 5), st.floats(0.021, 0.03))
def test_streams_on_one_engine_degrade_evenly(streams: int, model_s: float) -> None:
    machine = Machine()
    lanes = [machine.lane(model_s) for _ in range(streams)]
    for number, lane in enumerate(lanes):
        arrivals = [(s + number * 0.007, pts) for s, pts in even(25)]
        machine.publish(lane, arrivals)
    machine.run()
    shown = [len([s for s, _, _ in lane.shown if s >= 10.0]) for lane in lanes]
    assert max(shown) <= 1.25 * min(shown)
    for lane in lanes:
        assert p95(lane.delays_s()) < P95_S + (streams - 1) * model_s


def test_a_chunked_model_may_hold_a_chunk() -> None:
    """Its frames are due one by one and worked on together: that is no excess."""
    machine = Machine()
    lane = machine.lane(0.0)
    taken = 0

    def model_s(_: float) -> float:
        nonlocal taken
        taken += 1
        return 0.28 if taken % 8 == 0 else 0.0

    machine.lanes.clear()
    lane = machine.lane(model_s, chunk=8)
    machine.publish(lane, even(20))
    machine.run()
    assert lane.inbox.dropped == {}


@pytest.mark.parametrize(("told", "real"), [(10, 25), (20, 25), (24, 25), (1, 30), (25, 25)])
def test_the_delay_is_bounded_whatever_the_timestamps_say(told: int, real: int) -> None:
    """Pictures come faster than their timestamps say: due times follow arrival."""
    machine = Machine()
    lane = machine.lane(1.5 / real)
    machine.publish(lane, [(n / real, n * VIDEO_CLOCK_HZ // told) for n in range(real * 40)])
    machine.run()
    assert max(lane.delays_s()) < 0.5 + 1.0 + 0.1
    assert p95(lane.delays_s(after_s=8.0)) < P95_S + 0.1
    late = [(arrived_s, pts) for arrived_s, _, pts in lane.shown if arrived_s > 10.0]
    told_s = (late[-1][1] - late[0][1]) / VIDEO_CLOCK_HZ
    assert 0.94 < told_s / (late[-1][0] - late[0][0]) < 1.06
