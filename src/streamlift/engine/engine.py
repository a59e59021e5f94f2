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

__all__ = ["Engine", "Work", "left_behind"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_THREAD = "engine-"
_LEAST_STEP_S = 1e-6
"""So that lanes whose steps take no time at all take turns as well."""


class Work(Protocol):
    """A lane as the engine sees it."""

    @property
    def waiting_since_s(self) -> float | None:
        """Arrival of the oldest thing to do, or None; read under the engine's lock."""
        ...

    def step(self) -> None:
        """Do one thing. Runs on the engine thread; never raises."""
        ...


class Engine:
    """Runs jobs (loading, measuring) and lanes' steps.

    Lanes take turns: among those that have something to do, the one that has had the least of
    the thread's time goes first, and of equals the one with the oldest frame. A lane that was
    idle saves nothing up. So a lane that wants too much waits for itself, not the others for it.

    A model that hangs takes its thread with it; `steps` and `abandoned` tell, and whoever owns
    the engine calls `leave_behind`: the other lanes go on with another thread.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.changed = threading.Condition()
        """Guards what lanes share with the engine; notified when there is work."""
        self._clock = clock
        self._jobs: deque[Callable[[], None]] = deque()
        self._lanes: dict[Work, float] = {}
        """Seconds that each has had, counted from where the lanes were when it came."""
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
        """Seconds the current step or job has been running; 0 when idle."""
        since = self._busy_since_s
        return 0.0 if since is None else self._clock.now_s() - since

    @property
    def abandoned(self) -> bool:
        """Whether the thread works for a lane that has been detached meanwhile.

        One that is only slow, as on its first frames, still has its lane, and others behind it.
        """
        with self.changed:
            return self._stepping is not None and self._stepping not in self._lanes

    def steps(self, lane: object) -> bool:
        """Whether the thread works for this lane just now."""
        with self.changed:
            return self._stepping is lane

    def leave_behind(self) -> None:
        """The thread hangs in a model: the lanes get another one, without the lane it works for.

        The old thread ends when the model returns, if ever.
        """
        with self.changed:
            if self._stopping:
                return
            if self._stepping is not None:
                self._lanes.pop(self._stepping, None)
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
            self._lanes[lane] = min(self._lanes.values(), default=0.0)

    def detach(self, lane: Work) -> None:
        with self.changed:
            self._lanes.pop(lane, None)

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name=_THREAD + self.name, daemon=True)

    def _run(self) -> None:
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
                self.changed.wait()
        return None

    def _next(self) -> Callable[[], None] | None:
        if self._jobs:
            return self._jobs.popleft()
        since_s = {lane: lane.waiting_since_s for lane in self._lanes}
        waiting = [(self._lanes[lane], s, lane) for lane, s in since_s.items() if s is not None]
        if not waiting:
            return None
        had_s, _, self._stepping = min(waiting, key=lambda turn: turn[:2])
        for lane, since in since_s.items():
            if since is None:  # idle time is not saved up
                self._lanes[lane] = max(self._lanes[lane], had_s)
        return self._stepping.step

    def _charge(self) -> None:
        """Count the step that is over for its lane."""
        if self._stepping in self._lanes and self._busy_since_s is not None:
            taken_s = self._clock.now_s() - self._busy_since_s
            self._lanes[self._stepping] += max(taken_s, _LEAST_STEP_S)


def left_behind() -> bool:
    """Whether a model still computes on some engine's thread, as one that hangs does for ever.

    To end the interpreter then aborts the process: a thread that comes out of torch finds no
    interpreter to return to.
    """
    return any(thread.name.startswith(_THREAD) for thread in threading.enumerate())
