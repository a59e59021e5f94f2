"""The engine thread: jobs first, then the lane with the oldest frame."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import cv2
import pytest

from streamlift.clock import ManualClock, MonotonicClock
from streamlift.engine.engine import Engine, left_behind

WAIT_S = 10.0


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine("test", MonotonicClock())
    engine.start()
    yield engine
    assert engine.stop()


class FakeLane:
    """Work with times of arrival; notes the order in which it is done."""

    def __init__(
        self,
        name: str,
        arrivals: list[float],
        order: list[str],
        *,
        step: Callable[[], None] = lambda: None,
        guest: bool = False,
    ) -> None:
        self.guest = guest
        self._name = name
        self._arrivals = arrivals
        self._order = order
        self._step = step
        self.done = threading.Event()

    @property
    def waiting_since_s(self) -> float | None:
        return self._arrivals[0] if self._arrivals else None

    @property
    def due_s(self) -> float:
        return self._arrivals[0]

    @property
    def flight(self) -> None:
        return None

    def step(self) -> None:
        self._arrivals.pop(0)
        self._order.append(self._name)
        self._step()
        if not self._arrivals:
            self.done.set()


def test_a_job_runs_on_the_engines_thread_and_gives_its_result(engine: Engine) -> None:
    name = engine.run(lambda: threading.current_thread().name).result(WAIT_S)
    assert name == "engine-test"


def test_a_guest_has_its_turn_when_nobody_else_waits() -> None:
    order: list[str] = []
    engine = Engine("test", ManualClock())
    lanes = [FakeLane("guest", [1.0, 2.0], order, guest=True), FakeLane("own", [3.0, 4.0], order)]
    for lane in lanes:
        engine.attach(lane)
    engine.start()
    assert all(lane.done.wait(WAIT_S) for lane in lanes)
    assert engine.stop()
    assert order == ["own", "own", "guest", "guest"]


def test_a_new_lane_inherits_no_turns_that_a_guest_gave_away() -> None:
    order: list[str] = []
    clock = ManualClock()
    engine = Engine("test", clock)
    busy = FakeLane("busy", [1.0], order, step=lambda: clock.advance(5.0))
    guest = FakeLane("guest", [1.0, 2.0], order, guest=True)
    engine.attach(busy)
    engine.attach(guest)
    engine.start()
    assert busy.done.wait(WAIT_S)
    assert guest.done.wait(WAIT_S)
    new = FakeLane("new", [], order)
    engine.attach(new)
    assert engine._lanes[new] == engine._lanes[busy] == 5.0
    assert engine.stop()


def test_a_jobs_error_goes_to_whoever_asked(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError):
        engine.run(lambda: 1 // 0).result(WAIT_S)
    assert engine.run(lambda: "still there").result(WAIT_S) == "still there"


def test_the_lane_with_the_oldest_frame_goes_first() -> None:
    order: list[str] = []
    engine = Engine("test", ManualClock())
    lanes = [FakeLane("a", [1.0, 4.0], order), FakeLane("b", [2.0, 3.0], order)]
    for lane in lanes:
        engine.attach(lane)
    engine.start()
    assert all(lane.done.wait(WAIT_S) for lane in lanes)
    assert engine.stop()
    assert order == ["a", "b", "b", "a"]


def test_lanes_take_turns_however_much_one_of_them_wants() -> None:
    order: list[str] = []
    engine = Engine("test", ManualClock())
    greedy = FakeLane("greedy", [1.0 + n / 100 for n in range(20)], order)
    modest = FakeLane("modest", [1.5, 1.6, 1.7], order)
    for lane in (greedy, modest):
        engine.attach(lane)
    engine.start()
    assert greedy.done.wait(WAIT_S)
    assert engine.stop()
    assert order[:6] == 3 * ["greedy", "modest"]


def test_a_lane_within_its_means_waits_for_one_step_of_the_others_at_most() -> None:
    """A frame each 40 ms, beside a lane that always wants more; a step of either takes 15 ms."""
    clock = ManualClock()
    engine = Engine("test", clock)
    order: list[str] = []
    waits_s: list[float] = []
    came, enough = 0, threading.Event()

    def pass_time() -> None:
        nonlocal came
        clock.advance(0.015)
        while came * 0.04 <= clock.now_s():
            modest._arrivals.append(came * 0.04)
            came += 1

    def want_more() -> None:
        pass_time()
        greedy._arrivals.append(clock.now_s())

    def note_wait() -> None:
        waits_s.append(clock.now_s() - len(waits_s) * 0.04)
        pass_time()
        if len(waits_s) == 100:
            enough.set()

    greedy = FakeLane("greedy", [0.0] * 50, order, step=want_more)
    modest = FakeLane("modest", [], order, step=note_wait)
    for lane in (greedy, modest):
        engine.attach(lane)
    engine.start()
    assert enough.wait(WAIT_S)
    assert engine.stop()
    assert max(waits_s) <= 0.015 + 1e-6
    assert order.count("greedy") > 150, "what is left goes to whoever wants it"


def test_a_lane_whose_steps_take_long_has_fewer_of_them() -> None:
    clock = ManualClock()
    order: list[str] = []
    engine = Engine("test", clock)
    slow = FakeLane("slow", [1.0] * 10, order, step=lambda: clock.advance(0.04))
    quick = FakeLane("quick", [1.0] * 20, order, step=lambda: clock.advance(0.01))
    for lane in (slow, quick):
        engine.attach(lane)
    engine.start()
    assert quick.done.wait(WAIT_S)
    assert engine.stop()
    until_done = order[: len(order) - order[::-1].index("quick")]
    assert until_done.count("slow") in (5, 6), "four quick steps for each slow one"


def test_a_lane_saves_up_no_turns_while_it_is_idle() -> None:
    clock = ManualClock()
    order: list[str] = []
    engine = Engine("test", clock)
    late = FakeLane("late", [], order, step=lambda: clock.advance(0.01))

    def work() -> None:
        clock.advance(0.01)
        if len(order) == 20:
            late._arrivals.extend([1.0] * 10)

    steady = FakeLane("steady", [1.0] * 40, order, step=work)
    for lane in (steady, late):
        engine.attach(lane)
    engine.start()
    assert steady.done.wait(WAIT_S)
    assert engine.stop()
    assert "late" not in order[:20]
    assert 4 <= order[22:32].count("late") <= 6, "not all its ten at once"


def test_a_detached_lane_gets_no_more_turns(engine: Engine) -> None:
    order: list[str] = []
    lane = FakeLane("a", [], order)
    engine.attach(lane)
    engine.detach(lane)
    engine.detach(lane)  # twice does no harm
    lane._arrivals.append(1.0)
    with engine.changed:
        engine.changed.notify_all()
    engine.run(lambda: None).result(WAIT_S)
    assert order == []


def test_busy_time_tells_a_hang() -> None:
    clock = ManualClock()
    engine = Engine("test", clock)
    engine.start()
    inside, release = threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        release.wait(WAIT_S)

    future = engine.run(hang)
    assert inside.wait(WAIT_S)
    clock.advance(3.0)
    assert engine.busy_s == 3.0
    assert not engine.stop(timeout_s=0.05), "a hung thread cannot be stopped"
    assert left_behind()
    release.set()
    future.result(WAIT_S)
    assert engine.stop()
    assert not left_behind()
    assert engine.busy_s == 0.0


def test_opencv_works_on_the_engines_thread() -> None:
    cv2.setNumThreads(4)
    Engine("test", MonotonicClock())
    assert cv2.getNumThreads() == 1
