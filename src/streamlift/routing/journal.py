"""What is told of one stream: its state, the events, and the figures of moves and faults."""

from __future__ import annotations

import logging

from streamlift.metrics import Metrics
from streamlift.routing.budgets import FaultKind
from streamlift.routing.events import EventKind, EventLog
from streamlift.routing.states import StateMachine, StreamEvent, StreamState
from streamlift.routing.transition import Cause, Kind, Transition

__all__ = ["Journal"]

log = logging.getLogger(__name__)


class Journal:
    """Keeps a stream's state and tells of all that changes.

    Metrics: `backend_switch_total{from,to,result}`, `backend_switch_gap_seconds`,
    `failover_gap_seconds`, `backend_faults_total{kind,backend}`.
    """

    def __init__(self, stream: str, events: EventLog, metrics: Metrics) -> None:
        self.stream = stream
        self._events = events
        self._metrics = metrics
        self._machine = StateMachine()

    @property
    def state(self) -> StreamState:
        return self._machine.state

    @property
    def reason(self) -> str:
        """Why the stream is in its state."""
        return self._machine.reason

    def apply(self, event: StreamEvent, reason: str = "") -> None:
        """Something happened to the stream; tells if that changes its state."""
        before = self._machine.state
        if self._machine.apply(event, reason):
            self.tell(EventKind.STREAM_STATE, before=before, after=self.state, reason=reason)

    def tell(
        self,
        kind: EventKind,
        *,
        before: str | None = None,
        after: str | None = None,
        gap_ms: float | None = None,
        reason: str = "",
    ) -> None:
        """Add an event, and a line to the log."""
        log.info("stream %s: %s %s -> %s: %s", self.stream, kind, before, after, reason)
        self._events.add(
            kind, stream=self.stream, before=before, after=after, gap_ms=gap_ms, reason=reason
        )

    # Moves of the picture.

    def began(self, move: Transition) -> None:
        """A new lane is being opened."""
        if move.kind is Kind.SWITCH:
            self.apply(StreamEvent.SWITCH, f"switching to {move.after}")
            self._tell_move(EventKind.SWITCH_STARTED, move, move.reason)

    def landed(self, move: Transition, gap_s: float | None) -> None:
        """The first picture of the new lane went out, `gap_s` after the last of the old one."""
        if not move.told:
            return
        self._tell_move(EventKind.SWITCHED, move, move.reason, gap_s)
        self._count(move.before, move.after, "ok")
        if gap_s is not None:
            fault = move.cause is Cause.FAULT
            name = "failover_gap_seconds" if fault else "backend_switch_gap_seconds"
            self._metrics.observe(name, gap_s)
        self.apply(StreamEvent.SETTLED, move.reason)

    def gave_up(self, move: Transition, reason: str) -> None:
        """The new lane failed or another move is due: a switch is told, a succession only ends."""
        if move.kind is Kind.SWITCH:
            self._count(move.before, move.after, "aborted")
            self._tell_move(EventKind.SWITCH_ABORTED, move, reason)
            self.apply(StreamEvent.SETTLED, f"switch to {move.after} aborted: {reason}")
        elif move.told:
            self.apply(StreamEvent.SETTLED, move.reason)

    def resizing(self, backend: str, reason: str) -> None:
        """Another target size was asked for: told as a switch from a backend to itself."""
        self.tell(EventKind.SWITCH_STARTED, before=backend, after=backend, reason=reason)

    def resized(self, backend: str, reason: str, gap_s: float | None) -> None:
        """The first picture in it went out, `gap_s` after the last one before."""
        gap_ms = None if gap_s is None else round(gap_s * 1000, 1)
        self.tell(EventKind.SWITCHED, before=backend, after=backend, gap_ms=gap_ms, reason=reason)
        self._count(backend, backend, "ok")
        if gap_s is not None:
            self._metrics.observe("backend_switch_gap_seconds", gap_s)

    def resize_given_up(self, backend: str, reason: str) -> None:
        """None came, or another one was asked for meanwhile."""
        self.tell(EventKind.SWITCH_ABORTED, before=backend, after=backend, reason=reason)
        self._count(backend, backend, "aborted")

    def fault(self, backend: str, kind: FaultKind, after: str | None, reason: str) -> None:
        """A lane failed; `after` is the backend that replaces it, if any."""
        if kind.counts:
            self._metrics.count("backend_faults_total", kind=kind, backend=backend)
        if kind.counts or after is not None:
            self.tell(EventKind.FAULT, before=backend, after=after, reason=reason)
        if after is not None:
            self.apply(StreamEvent.SWITCH, f"{backend} failed: {reason}")

    def slate_shown(self) -> None:
        self._metrics.count("frames_fallback_total", kind="slate")

    def _tell_move(
        self, kind: EventKind, move: Transition, reason: str, gap_s: float | None = None
    ) -> None:
        gap_ms = None if gap_s is None else round(gap_s * 1000, 1)
        self.tell(kind, before=move.before, after=move.after, gap_ms=gap_ms, reason=reason)

    def _count(self, before: str | None, after: str, result: str) -> None:
        # As a dict because `from` is no Python name.
        labels = {"from": before or "", "to": after, "result": result}
        self._metrics.count("backend_switch_total", 1, **labels)
