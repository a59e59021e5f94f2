"""When what was read is handed over: at its time, or at once where it comes in its own time."""

from __future__ import annotations

import heapq
import os
import threading
import time
from collections.abc import Callable

from streamlift.media.remote.url.wire import Buffer, Kind, write_reason

__all__ = ["Outbox", "Pace"]

LEAD_S = 1.0
"""How far ahead is read: sound and picture of one time may lie so far apart in a file."""
LATE_S = 1.0
MOST_DUE = 4
"""Pictures that are due and not taken; beyond that the oldest goes."""
_BEAT_S = 1.0
_FRAME_S = 0.04
_SLICE_S = 0.25

Wait = Callable[[float], None]


class Pace:
    """Places times of the media on this machine's clock.

    A picture whose time is over a second from where it should be (a jump, or a source that could
    not keep up) is due now, and all after it go by that. Sound never moves the clock of pictures.
    """

    def __init__(self, *, paced: bool, now_s: Callable[[], float], wait: Wait) -> None:
        self.jumps = 0
        self._paced = paced
        self._now_s = now_s
        self._wait = wait
        self._anchor: float | None = None
        self._last_due = float("-inf")

    def picture_due(self, time_s: float) -> float:
        """When a picture of that time is to be handed over; waits while it is too early to read
        on."""
        if not self._paced:
            return self._now_s()
        due = self._due(time_s)
        now = self._now_s()
        if not now - LATE_S <= due <= now + LEAD_S + LATE_S:
            self.jumps += 1
            due = max(now, self._last_due + _FRAME_S)
            self._anchor = due - time_s
        self._last_due = max(self._last_due, due)
        self._wait(due - LEAD_S - now)
        return due

    def sound_due(self, time_s: float) -> float:
        """The same for sound; what is far from where it should be is due now."""
        now = self._now_s()
        if not self._paced:
            return now
        due = self._due(time_s)
        if not now - LATE_S <= due <= now + LEAD_S + LATE_S:
            return now
        self._wait(due - LEAD_S - now)
        return due

    def _due(self, time_s: float) -> float:
        if self._anchor is None:
            self._anchor = self._now_s() - time_s
        return self._anchor + time_s


class Outbox:
    """Messages in the order of their times, written to a pipe by a thread of its own.

    The reader's pace is not ours: of pictures that are due and not taken the newest are kept, the
    others counted in `stale`.
    """

    def __init__(self, descriptor: int) -> None:
        self.stale = 0
        self._descriptor = descriptor
        self._waiting: list[tuple[float, int, bool, list[Buffer]]] = []
        self._number = 0
        self._change = threading.Condition()
        self._ending = False
        self._beat_s = float("-inf")
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, due_s: float, message: list[Buffer], *, picture: bool = False) -> None:
        """`due_s` on the monotonic clock; never waits."""
        with self._change:
            heapq.heappush(self._waiting, (due_s, self._number, picture, message))
            self._number += 1
            if picture:
                self._drop_old()
            self._change.notify()

    def beat(self) -> None:
        """Tell that we are alive and something comes in, once a second."""
        now_s = time.monotonic()
        if now_s - self._beat_s >= _BEAT_S:
            self._beat_s = now_s
            self.put(now_s, write_reason(Kind.BEAT, ""))

    def wait(self, seconds: float) -> None:
        """Sleep, alive."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self.beat()
            time.sleep(min(left_s, _SLICE_S))

    def finish(self, last: list[Buffer], timeout_s: float) -> None:
        """Hand over what waits at its time, then `last`."""
        with self._change:
            due = max((entry[0] for entry in self._waiting), default=time.monotonic())
        self.put(max(due, time.monotonic()), last)
        with self._change:
            self._ending = True
            self._change.notify()
        self._thread.join(timeout_s)

    def _drop_old(self) -> None:
        now_s = time.monotonic()
        due = [entry for entry in self._waiting if entry[2] and entry[0] <= now_s]
        if len(due) > MOST_DUE:
            self._waiting.remove(min(due, key=lambda entry: entry[:2]))
            heapq.heapify(self._waiting)
            self.stale += 1

    def _run(self) -> None:
        while (message := self._next()) is not None:
            for part in message:
                view = memoryview(part).cast("B")
                while view:
                    try:
                        view = view[os.write(self._descriptor, view) :]
                    except OSError:
                        os._exit(0)  # whoever read this is gone

    def _next(self) -> list[Buffer] | None:
        with self._change:
            while True:
                if not self._waiting:
                    if self._ending:
                        return None
                    self._change.wait()
                    continue
                left_s = self._waiting[0][0] - time.monotonic()
                if left_s <= 0:
                    return heapq.heappop(self._waiting)[3]
                self._change.wait(left_s)
