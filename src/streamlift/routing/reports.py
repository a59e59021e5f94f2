"""Tells of moves from lane to lane: to the stream, in events, and in metrics."""

from __future__ import annotations

from dataclasses import dataclass

from streamlift.metrics import Metrics
from streamlift.routing.budgets import FaultKind
from streamlift.routing.crossing import CrossingKind
from streamlift.routing.events import EventKind
from streamlift.routing.feed import Feed
from streamlift.routing.viewport import Viewport

__all__ = ["Crossing", "Reports"]


@dataclass(slots=True)
class Crossing:
    """A move from the shown lane to the coming one, from one backend to another or the same."""

    kind: CrossingKind
    before: str | None
    after: str
    reason: str
    began_s: float
    wanted_before: str | None = None  # what an abort of a requested switch goes back to
    fault: bool = False  # the lane before failed
    asked_s: float = float("-inf")  # when a keyframe was last asked of the newcomer

    @property
    def visible(self) -> bool:
        """Whether it is a move to another backend that users are told of."""
        return self.fault or self.kind is CrossingKind.SWITCH


class Reports:
    """Metrics: `backend_switch_total{from,to,result}`, `backend_switch_gap_seconds`,
    `failover_gap_seconds`, `backend_faults_total{kind,backend}`."""

    def __init__(self, viewport: Viewport, metrics: Metrics) -> None:
        self._viewport = viewport
        self._metrics = metrics

    def switch_began(self, crossing: Crossing) -> None:
        self._viewport.crossing(True, f"switching to {crossing.after}")
        self._tell(EventKind.SWITCH_STARTED, crossing, crossing.reason)

    def landed(self, crossing: Crossing, gap_s: float | None) -> None:
        """The first picture of the new lane went out, `gap_s` after the last of the old one."""
        if not crossing.visible:
            return
        self._tell(EventKind.SWITCHED, crossing, crossing.reason, gap_s)
        self._count(crossing, "ok")
        if gap_s is not None:
            name = "failover_gap_seconds" if crossing.fault else "backend_switch_gap_seconds"
            self._metrics.observe(name, gap_s)
        self._viewport.crossing(False, crossing.reason)

    def aborted(self, crossing: Crossing, reason: str) -> None:
        """A switch was given up; the old lane stays."""
        self._count(crossing, "aborted")
        self._tell(EventKind.SWITCH_ABORTED, crossing, reason)
        self._viewport.crossing(False, f"switch to {crossing.after} aborted: {reason}")

    def superseded(self, crossing: Crossing) -> None:
        """A handover was given up for another one."""
        if crossing.visible:
            self._viewport.crossing(False, crossing.reason)

    def fault(self, feed: Feed, kind: FaultKind, after: str | None, reason: str) -> None:
        """A lane failed; `after` is the backend that replaces it, if any."""
        if kind.counts:
            self._metrics.count("backend_faults_total", kind=kind, backend=feed.backend)
        if kind.counts or after is not None:
            self._viewport.tell(EventKind.FAULT, before=feed.backend, after=after, reason=reason)
        if after is not None:
            self._viewport.crossing(True, f"{feed.backend} failed: {reason}")

    def _tell(
        self, kind: EventKind, crossing: Crossing, reason: str, gap_s: float | None = None
    ) -> None:
        gap_ms = None if gap_s is None else round(gap_s * 1000, 1)
        self._viewport.tell(
            kind, before=crossing.before, after=crossing.after, gap_ms=gap_ms, reason=reason
        )

    def _count(self, crossing: Crossing, result: str) -> None:
        # As a dict because `from` is no Python name.
        labels = {"from": crossing.before or "", "to": crossing.after, "result": result}
        self._metrics.count("backend_switch_total", 1, **labels)
