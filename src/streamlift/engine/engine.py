"""The engine: one thread that owns one device and runs the sessions of its lanes on it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

import cv2

from streamlift.clock import Clock

__all__ = ["LEEWAY_S", "Engine", "Work", "left_behind"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_THREAD = "engine-"
_LEAST_STEP_S = 1e-6
"""So that lanes whose steps take no time at all take turns as well."""
LEEWAY_S = 0.25
"""Two chunks of the slowest model on its card."""
_IN_FLIGHT = 2
"""Lanes whose work the device has at once: one is computed and one waits, so that it is never idle;
of the others the most urgent is next, whenever it came."""
_LOOK_S = 0.001
"""How often it is asked whether the device is done, while there is nothing else to do."""


class Flight(Protocol):
    """What a lane has launched on the device."""

    @property
    def ready(self) -> bool:
        """Whether the lane can go on with it without waiting."""
        ...


class Work(Protocol):
    """A lane as the engine sees it."""

    @property
    def guest(self) -> bool:
        """Whether it waits while any other has something to do."""
        ...

    @property
    def waiting_since_s(self) -> float | None:
        """Arrival of the oldest thing to do, or None; read under the engine's lock."""
        ...

    @property
    def due_s(self) -> float:
        """When the oldest picture that it has not given back was due; while something waits."""
        ...

    @property
    def flight(self) -> Flight | None:
        """What it has launched and not collected; it gets no other step meanwhile."""
        ...

    def step(self) -> None:
        """Do one thing. Runs on the engine thread; never raises, never waits for a device."""
        ...


class Engine:
    """Runs jobs (loading, measuring) and lanes' steps.

    Lanes take turns: among those that have something to do, the one that has had the least of
    the thread's time goes first, and of equals the one with the oldest frame. A lane that was
    idle saves nothing up. So a lane that wants too much waits for itself, not the others for it.
    Guests come after all others.

    On a GPU a step only launches: while the device computes for one lane, another one's turn
    comes, and nobody waits for anybody's download. What counts there is the device's time, and
    within a `leeway_s` of it the most urgent goes first.

    A model that hangs takes its thread with it; `steps` and `abandoned` tell, and whoever owns
    the engine calls `leave_behind`: the other lanes go on with another thread.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.changed = threading.Condition()
        """Guards what lanes share with the engine; notified when there is work."""
        self.leeway_s = 0.0
        """How much more of the device than another a lane may have had, and still go first."""
        self.prepare: Callable[[], None] | None = None
        """What each new thread does first."""
        self._clock = clock
        self._jobs: deque[Callable[[], None]] = deque()
        self._lanes: dict[Work, float] = {}
        """Seconds that each has had, counted from where the lanes were when it came."""
        self._flights: dict[Work, float] = {}
        """Lanes that the device works for, and since when it has had that, in its order."""
        self._landed_s = float("-inf")
        self._stopping = False
        self._busy_since_s: float | None = None
        self._stepping: Work | None = None
        # For the whole process: OpenCV's own threads shorten a step of one stream at a third more
        # processor time, taken from the encoders and the other streams.
        cv2.setNumThreads(1)
        self._thread = self._new_thread()

    def start(self) -> None:
        """Does nothing where it has started before."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> bool:
        """Ask the thread to end; False if it is stuck in a model and did not."""
        with self.changed:
            self._stopping = True
            self.changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """True once it was told to end; long jobs look at it."""
        return self._stopping

    @property
    def busy_s(self) -> float:
        """Seconds the current step or job has been running, or the device has been busy with
        the oldest of what was launched; 0 when idle."""
        with self.changed:
            since_s = [] if self._busy_since_s is None else [self._busy_since_s]
            if (launched_s := next(iter(self._flights.values()), None)) is not None:
                since_s.append(max(launched_s, self._landed_s))
        return self._clock.now_s() - min(since_s) if since_s else 0.0

    @property
    def abandoned(self) -> bool:
        """Whether the thread or the device works for a lane that has been detached meanwhile.

        One that is only slow, as on its first frames, still has its lane, and others behind it.
        """
        with self.changed:
            lane = self._served()
            return lane is not None and lane not in self._lanes

    def steps(self, lane: object) -> bool:
        """Whether the thread or the device works for this lane just now."""
        with self.changed:
            return self._served() is lane

    def leave_behind(self) -> None:
        """The thread hangs in a model: the lanes get another one, without the lane it works for.

        The old thread ends when the model returns, if ever.
        """
        with self.changed:
            if self._stopping:
                return
            lane = self._served()
            if lane is not None:
                self._lanes.pop(lane, None)
                self._flights.pop(lane, None)
            self._stepping = self._busy_since_s = None
            self._thread = self._new_thread()
            self._thread.start()

    def run(self, job: Callable[[], T]) -> Future[T]:
        """Run `job` on the engine thread, before any lane's next step."""
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(job())
            except BaseException as error:  # noqa: BLE001  # handed to whoever asked for the job
                future.set_exception(error)

        with self.changed:
            self._jobs.append(call)
            self.changed.notify_all()
        return future

    def attach(self, lane: Work) -> None:
        with self.changed:
            # Not from where a guest is, which let all others go first.
            peers = [had_s for other, had_s in self._lanes.items() if lane.guest or not other.guest]
            self._lanes[lane] = min(peers, default=0.0)

    def detach(self, lane: Work) -> None:
        """No more turns; what the device still does for it is waited for all the same."""
        with self.changed:
            self._lanes.pop(lane, None)

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name=_THREAD + self.name, daemon=True)

    def _run(self) -> None:
        if self.prepare is not None:
            self.prepare()
        while (work := self._await_work()) is not None:
            work()

    def _await_work(self) -> Callable[[], None] | None:
        """What to do next; None when this thread is to end."""
        with self.changed:
            while self._thread is threading.current_thread():
                self._charge()
                self._stepping = self._busy_since_s = None
                if self._stopping:
                    return None
                if (work := self._next()) is not None:
                    self._busy_since_s = self._clock.now_s()
                    return work
                self.changed.wait(_LOOK_S if self._flights else None)
        return None

    def _next(self) -> Callable[[], None] | None:
        if self._jobs:
            return self._jobs.popleft()
        if (landed := self._landed()) is not None:
            self._stepping = landed
            return landed.step
        if len(self._flights) >= _IN_FLIGHT:
            return None
        return self._next_turn()

    def _next_turn(self) -> Callable[[], None] | None:
        since_s = {lane: lane.waiting_since_s for lane in self._lanes if lane not in self._flights}
        waiting = [(self._lanes[lane], s, lane) for lane, s in since_s.items() if s is not None]
        waiting = [turn for turn in waiting if not turn[2].guest] or waiting
        if not waiting:
            return None
        least_s = min(had_s for had_s, _, _ in waiting)
        eligible = [turn for turn in waiting if turn[0] <= least_s + self.leeway_s]
        if self.leeway_s:
            _, _, self._stepping = min(eligible, key=lambda turn: turn[2].due_s)
        else:
            _, _, self._stepping = min(eligible, key=lambda turn: turn[1])
        for lane, since in since_s.items():
            if since is None:  # idle time is not saved up
                self._lanes[lane] = max(self._lanes[lane], least_s)
        return self._stepping.step

    def _landed(self) -> Work | None:
        """A lane whose launched work can be collected now."""
        for lane in tuple(self._flights):
            flight = lane.flight
            if flight is None or flight.ready:
                if lane in self._lanes:
                    return lane
                self._flights.pop(lane)  # nobody wants it any more
                self._landed_s = self._clock.now_s()
        return None

    def _charge(self) -> None:
        """Count the step that is over for its lane, and what the device did for it."""
        lane, began_s = self._stepping, self._busy_since_s
        if lane is None or began_s is None:
            return
        now_s = self._clock.now_s()
        taken_s = now_s - began_s
        if lane.flight is not None:
            self._flights.setdefault(lane, now_s)
        elif (launched_s := self._flights.pop(lane, None)) is not None:
            # The device takes one after the other: from when it was done with the one before.
            taken_s += began_s - max(launched_s, self._landed_s)
            self._landed_s = began_s
        if lane in self._lanes:
            self._lanes[lane] += max(taken_s, _LEAST_STEP_S)

    def _served(self) -> Work | None:
        """The lane that the thread works for, or else the device."""
        if self._stepping is not None or self._busy_since_s is not None:
            return self._stepping
        return next(iter(self._flights), None)


def left_behind() -> bool:
    """Whether a model still computes on some engine's thread, as one that hangs does for ever.

    To end the interpreter then aborts the process: a thread that comes out of torch finds no
    interpreter to return to.
    """
    return any(thread.name.startswith(_THREAD) for thread in threading.enumerate())
