"""What happened, for `GET /api/v1/events`: a bounded log with any number of readers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

__all__ = ["Event", "EventKind", "EventLog", "Subscription"]

KEEP_EVENTS = 1000


class EventKind(StrEnum):
    """The names on the wire."""

    STREAM_STATE = "stream.state"
    BACKEND_STATE = "backend.state"
    SWITCH_STARTED = "switch.started"
    SWITCHED = "switched"
    SWITCH_ABORTED = "switch.aborted"
    POLICY_STEP = "policy.step"
    FAULT = "fault"
    COMPARE_STARTED = "compare.started"
    COMPARE_ENDED = "compare.ended"
    PUBLISHER_GONE = "publisher.gone"
    PUBLISHER_BACK = "publisher.back"
    WEIGHTS = "weights"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `before` and `after` are `from` and `to` on the wire; `time` is Unix seconds.

    They name states for `stream.state` and `backend.state`, a backend and how its download is for
    `weights`, backends otherwise. `stream` is
    empty for events of a backend.
    """

    seq: int
    kind: EventKind
    time: float
    stream: str
    before: str | None
    after: str | None
    gap_ms: float | None
    reason: str


class EventLog:
    """Keeps the last 1,000 events. A reader that falls further behind misses the oldest."""

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._events: deque[Event] = deque(maxlen=KEEP_EVENTS)
        self._subscriptions: set[Subscription] = set()
        self._next = 1

    def add(
        self,
        kind: EventKind,
        *,
        stream: str = "",
        before: str | None = None,
        after: str | None = None,
        gap_ms: float | None = None,
        reason: str = "",
    ) -> None:
        """Append an event and wake the readers."""
        now = self._wall_clock()
        self._events.append(Event(self._next, kind, now, stream, before, after, gap_ms, reason))
        self._next += 1
        for subscription in self._subscriptions:
            subscription._wake.set()

    def subscribe(self, stream: str | None = None, after_seq: int | None = None) -> Subscription:
        """Read events from now on, or those after `after_seq` that are still kept.

        `stream`: only that stream's. Close the subscription when done.
        """
        last = self._next - 1
        after_seq = last if after_seq is None else min(after_seq, last)  # or of an earlier run
        subscription = Subscription(self, stream, after_seq)
        self._subscriptions.add(subscription)
        return subscription

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in tuple(self._subscriptions):
            subscription.close()

    def _after(self, seq: int) -> Event | None:
        oldest = self._next - len(self._events)
        index = max(0, seq + 1 - oldest)
        return self._events[index] if index < len(self._events) else None


class Subscription:
    """An async iterator of events; holds a place in the log and no queue of its own."""

    def __init__(self, log: EventLog, stream: str | None, after_seq: int) -> None:
        self._log = log
        self._stream = stream
        self._seq = after_seq
        self._wake = asyncio.Event()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        while not self._closed:
            event = self._log._after(self._seq)
            if event is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._seq = event.seq
            if self._stream is None or event.stream == self._stream:
                return event
        raise StopAsyncIteration

    def close(self) -> None:
        self._closed = True
        self._log._subscriptions.discard(self)
        self._wake.set()
