"""What viewers of one stream compare its picture with: at most one lane for each other backend."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from streamlift.clock import Clock
from streamlift.errors import NoCapacity, NotReady, UnknownStream, reason_of
from streamlift.frames import Frame, LaneOptions
from streamlift.metrics import Metrics
from streamlift.routing.backends import BackendTable
from streamlift.routing.budgets import ErrorBudget, fault_kind
from streamlift.routing.comparison import Comparison
from streamlift.routing.counts import Counts
from streamlift.routing.events import EventKind
from streamlift.routing.fanout import Fanout
from streamlift.routing.journal import Journal
from streamlift.routing.lanes import Lanes
from streamlift.routing.status import CompareSnapshot
from streamlift.tasks import supervise

__all__ = ["Comparisons"]

log = logging.getLogger(__name__)


class Comparisons:
    """Opens and ends them, and feeds them what the stream's own lane gets.

    Their lanes are guests on their backends: they leave, or take fewer frames, before a stream's
    own picture lacks anything. Their faults are counted here, apart from the stream's own.
    Metric: `comparisons_total{backend,result}`.
    """

    def __init__(
        self,
        table: BackendTable,
        lanes: Lanes,
        *,
        options: Callable[[], LaneOptions],
        fanout: Fanout,
        counts: Counts,
        journal: Journal,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """`options`: what the stream asks of a lane that is opened now."""
        self.tasks: asyncio.TaskGroup | None = None
        """Of the stream; none before it runs and once it ends."""
        self._table = table
        self._lanes = lanes
        self._options = options
        self._fanout = fanout
        self._counts = counts
        self._journal = journal
        self._clock = clock
        self._metrics = metrics
        self._open: dict[str, Comparison] = {}
        self._budgets: dict[str, ErrorBudget] = {}
        self._told: set[Comparison] = set()  # of which somebody was told that they began
        self._losses = 0  # of the stream's own lanes, when looked at last
        fanout.followers.append(self._release)

    @property
    def viewers(self) -> int:
        """Sessions that watch any of them."""
        return sum(one.viewers for one in self._open.values())

    async def join(self, backend: str) -> Comparison:
        """One on this backend, opened if there is none; `leave` it when done. Returns when its
        lane is open, or would be if the stream had a picture.

        Raises UnknownStream, UnknownBackend, NotReady or NoCapacity.
        """
        comparison = self._open.get(backend) or self._begin(backend)
        comparison.holders += 1
        try:
            await comparison.opened()
            if comparison.reason is not None:
                raise _refusal(comparison)
        except BaseException:
            self.leave(comparison)
            raise
        if comparison not in self._told:
            self._told.add(comparison)
            self._journal.tell(EventKind.COMPARE_STARTED, after=backend, reason="asked")
        return comparison

    def leave(self, comparison: Comparison) -> None:
        """The last one who does ends it."""
        comparison.holders -= 1
        if comparison.holders == 0:
            comparison.end("nobody compares any more")

    def offer(self, frame: Frame) -> None:
        """A frame that the stream's own lane has got."""
        if self._open:
            self.look()
        self._each(lambda one: one.offer(frame, self._fanout.rendition))

    def finish(self) -> None:
        """The publisher is gone: what comes next is another one's."""
        self._each(Comparison.finish)

    def look(self) -> None:
        """Whether the stream's own lanes have lost frames since the last time: then all guests of
        the service take less."""
        losses = self._counts.losses(self._lanes.dropped)
        if losses > self._losses:
            self._table.guests.restraint.strained(self._clock.now_s())
        self._losses = losses

    def close(self, reason: str) -> None:
        """The stream ends."""
        self.tasks = None
        for comparison in tuple(self._open.values()):
            comparison.end(reason)

    def snapshots(self) -> tuple[CompareSnapshot, ...]:
        """How they are now, by backend."""
        return tuple(one.snapshot() for _, one in sorted(self._open.items()))

    def _begin(self, backend: str) -> Comparison:
        if self.tasks is None:
            raise UnknownStream(f"stream {self._journal.stream} is closed")
        self._must_be_usable(backend)
        comparison = Comparison(
            backend,
            self._table[backend],
            stream=self._journal.stream,
            rendition=self._fanout.rendition,
            options=self._options,
            restraint=self._table.guests.restraint,
            clock=self._clock,
            metrics=self._metrics,
            on_end=self._ended,
        )
        self._open[backend] = comparison
        self._table.guests.add(comparison)
        comparison.begin(self.tasks, self._counts.last_in)
        return comparison

    def _must_be_usable(self, backend: str) -> None:
        """Raises UnknownBackend or NotReady. Whether there is room only the backend can say."""
        stream, now_s = self._journal.stream, self._clock.now_s()
        state = self._table.info(backend, stream).state
        if not self._table.usable(backend, stream):
            raise NotReady(
                f"backend {self._table.why_not(backend, stream)}", found=state, expected="ready"
            )
        budget = self._budgets.get(backend)
        if budget is not None and budget.over(now_s):
            del self._budgets[backend]
        elif budget is not None and not budget.may_try(now_s):
            raise NotReady(
                f"backend {backend} failed in a comparison of this stream: {budget.reason}; "
                "retry later",
                found="failed",
                expected="ready",
            )

    def _ended(self, comparison: Comparison, reason: str, error: Exception | None) -> None:
        backend = comparison.backend
        self._open.pop(backend, None)
        self._table.guests.remove(comparison)
        result = "ended" if error is None else "failed"
        self._metrics.count("comparisons_total", backend=backend, result=result)
        if error is not None:
            self._charge(backend, reason, error)
        if comparison in self._told:
            self._told.remove(comparison)
            self._journal.tell(EventKind.COMPARE_ENDED, before=backend, reason=reason)

    def _charge(self, backend: str, reason: str, error: Exception) -> None:
        """Keep away for a while; who fails too often is probed, as if a stream had suspected it."""
        kind = fault_kind(error)
        if not kind.counts:
            return
        budget = self._budgets.setdefault(backend, ErrorBudget())
        budget.fault(self._clock.now_s(), reason)
        self._journal.fault(backend, kind, None, f"comparison: {reason}")
        if budget.quarantined and self.tasks is not None and backend in self._table:
            probe = self._table.probe(backend)
            self.tasks.create_task(supervise(f"probe of {backend}", probe))

    def _release(self, pts: int) -> None:
        self._each(lambda one: one.release(pts))

    def _each(self, do: Callable[[Comparison], None]) -> None:
        for comparison in tuple(self._open.values()):
            try:
                do(comparison)
            except Exception as error:  # the stream's own picture goes on, whatever is wrong here
                log.exception("stream %s: comparison", self._journal.stream)
                comparison.end(reason_of(error), error)


def _refusal(comparison: Comparison) -> NoCapacity | NotReady:
    """Why it never came to be, as an error for whoever asked."""
    if isinstance(comparison.error, NoCapacity | NotReady):
        return comparison.error
    return NotReady(
        f"backend {comparison.backend} cannot be compared with: {comparison.reason}",
        found="ended",
        expected="a lane",
    )
