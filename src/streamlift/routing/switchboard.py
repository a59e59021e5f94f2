"""The lanes of one stream: opens them, feeds them, shows one, and moves from one to another.

One rule for everything: frames go to the *shown* lane; when there is reason to move, a *coming*
lane is opened, and `crossing.decide` says when the picture moves to it. A switch feeds both
meanwhile. Everything else (another size, a returning publisher, a failed lane) is a handover:
the old lane gets no more frames, and those it still owed when it died go to the new one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping

from streamlift.clock import Clock
from streamlift.errors import NoCapacity
from streamlift.frames import BackendState, EncodedFrame, Frame, Rendition
from streamlift.metrics import Metrics
from streamlift.routing.budgets import ErrorBudget, FaultKind, fault_kind, info_within
from streamlift.routing.carry import carry
from streamlift.routing.crossing import (
    CrossingFacts,
    CrossingKind,
    Move,
    SwitchMode,
    decide,
    hold_offset,
)
from streamlift.routing.events import EventKind
from streamlift.routing.feed import Feed
from streamlift.routing.playout import Playout
from streamlift.routing.ports import Backend, Lane
from streamlift.routing.reports import Crossing, Reports
from streamlift.routing.supervise import supervise
from streamlift.routing.viewport import Viewport

__all__ = ["Switchboard"]

log = logging.getLogger(__name__)

TICK_S = 0.05
ABORT_S = 10.0
ASK_AGAIN_S = 0.5
RETRY_S, LONGEST_RETRY_S = 2.0, 30.0
"""Between attempts to return to a backend that is full or loading."""
REOPEN_S = 0.25
"""Before a failed fallback is opened again."""
OPENING_S = 5.0
"""A backend that says it is ready must have a lane open by then; a newcomer has `ABORT_S`."""


class Switchboard:
    """Owns one task per lane, from its opening to its end."""

    def __init__(
        self,
        stream: str,
        backends: Mapping[str, Backend],
        wanted: str,
        fallback: str | None,
        budgets: Mapping[str, ErrorBudget],
        viewport: Viewport,
        clock: Clock,
        metrics: Metrics,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._stream = stream
        self._backends = backends
        self._fallback = fallback
        self._budgets = budgets
        self._viewport = viewport
        self._clock = clock
        self._reports = Reports(viewport, metrics)
        self._tasks = tasks
        self._open_feeds: set[Feed] = set()
        self._shown: Feed | None = None
        self._coming: Feed | None = None
        self._crossing: Crossing | None = None
        self._landing: tuple[Crossing, float | None] | None = None  # cut, first picture awaited
        self._held_back_s = 0.0  # delay kept by constant latency
        self._request: tuple[str, str] | None = None  # a switch to begin: reason, wanted before
        self._retry_s = float("-inf")
        self._retry_after_s = RETRY_S
        self._mode = SwitchMode.LOW_LATENCY
        self._playout = Playout(clock, self._aim, viewport.show, self._went_out)
        self.wanted = wanted
        self.degraded = False
        self.why = ""  # why it is degraded

    # What the stream asks.

    @property
    def backend(self) -> str:
        """The backend whose pictures are shown, or will be."""
        feed = self._front()
        return self.wanted if feed is None or feed.slate else feed.backend

    @property
    def strained(self) -> str | None:
        """Why the shown lane gives less than its backend can, if it does."""
        feed = self._shown
        if feed is None or feed.lane is None or not feed.lane.degraded:
            return None
        return f"{feed.backend} enlarges plainly: the machine is too slow for more"

    @property
    def can_spend_less(self) -> bool:
        """Whether the shown lane has a cheaper way of its own to keep up."""
        feed = self._shown
        return feed is not None and feed.lane is not None and feed.lane.can_spend_less

    @property
    def crossing_to(self) -> str | None:
        """The backend that a switch is moving to."""
        crossing = self._crossing
        return crossing.after if crossing and crossing.kind is CrossingKind.SWITCH else None

    async def run(self) -> None:
        """Play out, and watch lanes and deadlines; ends by cancellation."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._playout.run())
            tasks.create_task(self._watch())

    def offer(self, frame: Frame, *, slate: bool = False, admission: bool = False) -> None:
        """Hand a frame to the lane that is to show it, and during a switch to both.

        `admission`: without a slot for it the publisher is refused, instead of falling back.
        """
        now_s = self._clock.now_s()
        front = self._front()
        if front is None or front.finished or front.size != frame.size or front.slate != slate:
            feed = Feed(
                self._slate_backend() if slate else self._choose(now_s),
                frame.size,
                now_s,
                slate=slate,
                admission=admission,
            )
            self._succeed(front, feed, now_s)
            front = feed
        if not front.offer(frame, now_s):
            self._viewport.drop("stale", 1)
        if self._coming is not None and self._coming is not front:
            self._coming.offer(frame, now_s)

    def switch(self, backend: str, mode: SwitchMode | None, reason: str) -> None:
        """Move to another backend; the last request wins. Returns at once."""
        self._mode = mode or self._mode
        wanted_before = self.wanted
        self._request = None
        self.wanted = backend
        if self.crossing_to == backend:
            return
        if self._crossing is not None and self._crossing.kind is CrossingKind.SWITCH:
            wanted_before = self._crossing.wanted_before or wanted_before
            self._abort("superseded by a later request", keep_wanted=True)
        feed = self._front()
        if feed is None or feed.slate or feed.finished:
            self.degraded = False
            self._viewport.tell(
                EventKind.SWITCHED, before=wanted_before, after=backend, reason="no picture now"
            )
        elif feed.backend == backend:
            self.degraded = False
        else:
            self._request = (reason, wanted_before)
            if self._crossing is None:
                self._begin_switch(feed)

    def request_keyframe(self) -> None:
        if self._shown is not None and self._shown.lane is not None and self._shown.alive:
            self._shown.lane.request_keyframe()

    def set_renditions(self, wanted: frozenset[Rendition]) -> None:
        for feed in self._open_feeds:
            if feed.lane is not None:
                feed.lane.set_renditions(wanted)

    def dropped(self) -> Counter[str]:
        """Drops of the lanes that are open now, by reason."""
        total: Counter[str] = Counter()
        for feed in self._open_feeds:
            if feed.lane is not None:
                total.update(feed.lane.dropped)
        return total

    def finish(self) -> None:
        """No more frames come: the shown lane drains and ends by itself."""
        if self.crossing_to is not None:
            self._abort("no more frames", keep_wanted=True)
        front = self._front()
        if front is not None:
            front.finish(self._clock.now_s())

    async def drain(self, timeout_s: float) -> None:
        """Finish, give the lanes `timeout_s` to deliver what they owe, then end them."""
        self.finish()
        tasks = [feed.task for feed in self._open_feeds if feed.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        self._advance()
        self._playout.flush()
        for feed in tuple(self._open_feeds):
            feed.retire()

    # Moving from lane to lane.

    def _front(self) -> Feed | None:
        """The lane that a new frame is meant for first."""
        if self._crossing is not None and self._crossing.kind is CrossingKind.HANDOVER:
            return self._coming
        return self._shown

    def _succeed(self, old: Feed | None, feed: Feed, now_s: float) -> None:
        """Finish the lane before and open the next one, for another size, publisher or slate."""
        if self.crossing_to is not None:
            self._abort("the lane before ended", keep_wanted=True)
        if old is not None and old is self._coming:
            self._settle_handover(now_s)
        if old is not None:
            old.finish(now_s)
        self._begin(feed, CrossingKind.HANDOVER, "slate" if feed.slate else "new lane", now_s)

    def _begin_switch(self, old: Feed) -> None:
        """Move to the wanted backend: by request, or back to it after a fault."""
        now_s = self._clock.now_s()
        reason, wanted_before = self._request or ("trying again", None)
        self._request = None
        feed = Feed(self.wanted, old.size, now_s)
        crossing = self._begin(feed, CrossingKind.SWITCH, reason, now_s)
        crossing.wanted_before = wanted_before
        self._reports.switch_began(crossing)

    def _begin(self, feed: Feed, kind: CrossingKind, reason: str, now_s: float) -> Crossing:
        before = None if self._shown is None else self._shown.backend
        crossing = Crossing(kind, before, feed.backend, reason, now_s)
        predecessor = None
        if self._shown is not None and self._shown.backend == feed.backend:
            predecessor = self._shown.task
        self._coming, self._crossing = feed, crossing
        self._open_feeds.add(feed)
        feed.task = self._tasks.create_task(self._own(feed, kind, predecessor))
        feed.task.add_done_callback(lambda _: self._ended(feed))  # also if it never started
        return crossing

    def _advance(self) -> None:
        """Look whether the picture can move now."""
        feed, crossing = self._coming, self._crossing
        if feed is None or crossing is None:
            return
        now_s = self._clock.now_s()
        shown_pts = self._playout.last_pts
        key = feed.keyframe_after(shown_pts, self._viewport.leads, now_s)
        facts = CrossingFacts(
            kind=crossing.kind,
            mode=self._mode,
            frames=feed.offsets.count,
            shown=self._playout.pace.offset,
            usual=None if self._shown is None else self._shown.offsets.middle,
            high=feed.offsets.high,
            key_waited_s=None if key is None else now_s - feed.held_since_s,
            old_comes_first=key is not None and self._old_comes_before(key),
        )
        move = decide(facts)
        if move is Move.ASK and now_s - crossing.asked_s > ASK_AGAIN_S and feed.lane is not None:
            crossing.asked_s = now_s
            feed.lane.request_keyframe()
        elif move is Move.CUT and key is not None:
            self._cut(feed, crossing, key)

    def _old_comes_before(self, pts: int) -> bool:
        if self._playout.pending_before(pts):
            return True
        return self._shown is not None and self._shown.owes_between(self._playout.last_pts, pts)

    def _cut(self, feed: Feed, crossing: Crossing, key: int) -> None:
        """From its keyframe on, the coming lane is the shown one."""
        old, offset, high = self._shown, self._playout.pace.offset, feed.offsets.high
        pending = self._playout.forget()
        skipped = {pts for pts in pending if pts < key}
        if old is not None:
            after = -1 if self._playout.last_pts is None else self._playout.last_pts
            skipped |= {frame.pts for frame in old.owed if after < frame.pts < key}
            old.retire()
        if skipped:
            self._viewport.drop("switch", len(skipped))
            self._playout.pace.jump()
        # Whatever made the old one uneven may be the publisher; until the new one proves itself.
        feed.offsets.uneven |= old is not None and old.offsets.uneven
        self._held_back_s = 0.0
        if crossing.kind is CrossingKind.SWITCH and self._mode is SwitchMode.CONSTANT_LATENCY:
            self._held_back_s = max(0.0, (offset or 0.0) - (high or 0.0))
        self._shown, self._coming, self._crossing = feed, None, None
        self._landing = (crossing, self._playout.last_s)
        held, feed.held = feed.held, type(feed.held)()
        for encoded in held:
            self._playout.put(encoded, feed, leads=self._viewport.leads(encoded))

    def _went_out(self, feed: Feed, now_s: float) -> None:
        """A picture went out: close the books of a crossing, or look whether to cut now."""
        if self._landing is None or feed is not self._shown:
            self._advance()
            return
        (crossing, last_s), self._landing = self._landing, None
        gap_s = None if last_s is None else now_s - last_s
        if feed.backend == self.wanted:
            self.degraded = False
            self._retry_after_s = RETRY_S
            self._budgets[feed.backend].works(now_s)
        self._reports.landed(crossing, gap_s)

    def _abort(self, reason: str, *, keep_wanted: bool) -> None:
        """Give up a switch; the shown lane stays."""
        feed, crossing = self._coming, self._crossing
        if feed is None or crossing is None:
            return
        self._coming = self._crossing = None
        feed.retire()
        if crossing.wanted_before is not None and not keep_wanted:
            self.wanted = crossing.wanted_before
        self._retry_s = self._clock.now_s() + self._retry_after_s
        self._retry_after_s = min(2 * self._retry_after_s, LONGEST_RETRY_S)
        self._reports.aborted(crossing, reason)

    def _settle_handover(self, now_s: float) -> None:
        """Another handover is due before this one is done: show what there is, or give it up."""
        feed, crossing = self._coming, self._crossing
        if feed is None or crossing is None:
            return
        key = feed.keyframe_after(self._playout.last_pts, self._viewport.leads, now_s)
        if key is not None:
            self._cut(feed, crossing, key)
            return
        if feed.owed:
            self._viewport.drop("superseded", len(feed.owed))
        self._coming = self._crossing = None
        feed.retire()
        self._reports.superseded(crossing)

    # Pacing.

    def _aim(self) -> float | None:
        """The offset to pace the shown lane to."""
        shown, coming = self._shown, self._coming
        if shown is None or shown.slate:
            return None
        aim = shown.offsets.aim
        if self._held_back_s:
            aim = (shown.offsets.high or 0.0) + self._held_back_s
        if coming is not None and self.crossing_to is not None:
            hold = hold_offset(coming.offsets.high, coming.offsets.spread, coming.offsets.count)
            if hold is not None and hold > (shown.offsets.high or 0.0):
                return hold if aim is None else max(aim, hold)
        return aim

    # A lane's life.

    async def _own(
        self, feed: Feed, kind: CrossingKind, predecessor: asyncio.Task[None] | None
    ) -> None:
        work = carry(
            feed,
            self._backends[feed.backend],
            self._viewport.lane_options,
            self,
            self._clock,
            predecessor=predecessor,
            open_within_s=ABORT_S if kind is CrossingKind.SWITCH else OPENING_S,
        )
        await supervise(f"stream {self._stream}: lane on {feed.backend}", work)

    def _ended(self, feed: Feed) -> None:
        feed.alive = False
        self._open_feeds.discard(feed)
        self._advance()

    def arrived(self, feed: Feed, encoded: EncodedFrame) -> None:
        """A lane delivered a frame."""
        now_s = self._clock.now_s()
        leads = self._viewport.leads(encoded)
        if leads:
            feed.returned(encoded.pts, now_s)
        if feed is self._shown:
            self._playout.put(encoded, feed, leads=leads)
        elif feed is self._coming:
            feed.hold(encoded, leads, now_s)
        self._advance()

    def closing(self, lane: Lane) -> None:
        for feed in self._open_feeds:
            if feed.lane is lane:
                feed.lane = None  # its counts are the past's from now on, not the present's too
        self._viewport.lane_ended(lane)

    # Faults.

    def turned_away(self, feed: Feed, error: NoCapacity) -> None:
        """A lane was refused; at the publisher's start that is the publisher's to know."""
        if not feed.admission:
            self.failed(feed, error)
            return
        self._coming = self._crossing = None
        self._viewport.refused(error)

    def failed(self, feed: Feed, error: Exception) -> None:
        """A lane failed: a newcomer of a switch is given up, any other is replaced."""
        if not feed.alive:
            return  # already replaced
        feed.alive = False
        kind, reason, now_s = fault_kind(error), str(error) or repr(error), self._clock.now_s()
        log.warning("stream %s: %s: %s: %r", self._stream, feed.backend, kind, error)
        if kind.counts:
            self._budgets[feed.backend].fault(now_s, reason)
        if feed is self._front() and not feed.finished:
            self._replace(feed, kind, f"{kind}: {reason}", now_s)
            return
        self._reports.fault(feed, kind, None, f"{kind}: {reason}")
        if feed is self._coming and self.crossing_to is not None:
            self._abort(reason, keep_wanted=False)
        elif feed is self._coming:
            self._settle_handover(now_s)

    def _replace(self, feed: Feed, kind: FaultKind, reason: str, now_s: float) -> None:
        """Open a lane on the fallback backend and give it all that the failed one owed."""
        if self.crossing_to is not None:
            self._abort(f"{feed.backend} failed meanwhile", keep_wanted=True)
        owed = list(feed.owed)
        feed.owed.clear()
        if feed is self._coming:
            self._settle_handover(now_s)
        feed.retire()
        backend = self._fallback or feed.backend
        self.degraded = self.degraded or backend != self.wanted
        self.why = f"{feed.backend} failed: {reason}"
        follower = Feed(
            backend,
            feed.size,
            now_s,
            slate=feed.slate,
            fallback=True,
            delay_s=REOPEN_S if feed.backend == backend else 0.0,
        )
        self._reports.fault(feed, kind, backend, reason)
        crossing = self._begin(follower, CrossingKind.HANDOVER, reason, now_s)
        crossing.before, crossing.fault = feed.backend, True
        for frame in owed:
            follower.offer(frame, now_s)

    async def _watch(self) -> None:
        due_s = self._clock.now_s()
        while True:
            await asyncio.sleep(TICK_S)
            now_s = self._clock.now_s()
            late_s, due_s = now_s - due_s - TICK_S, now_s
            if late_s > TICK_S:
                continue  # this loop was blocked; lanes may have answered meanwhile
            self._tick(now_s)

    def _tick(self, now_s: float) -> None:
        front = self._front()
        if front is not None and front.alive and front.watchdog.hung(now_s):
            self.failed(front, TimeoutError("no answer"))
        crossing = self._crossing
        if self.crossing_to and crossing and now_s - crossing.began_s > ABORT_S:
            self._abort(f"no picture in step within {ABORT_S:g} s", keep_wanted=False)
        self._advance()
        self._return_to_wanted(now_s)

    def _return_to_wanted(self, now_s: float) -> None:
        """After a fault: try the wanted backend again, while the fallback runs."""
        shown = self._shown
        if self._crossing is not None or shown is None or shown.slate or not shown.alive:
            return
        if shown.finished or shown.backend == self.wanted:
            return
        if self._request or (now_s >= self._retry_s and self._usable(self.wanted, now_s)):
            self._begin_switch(shown)

    def _choose(self, now_s: float) -> str:
        """The backend for a lane that is opened now."""
        if self._fallback is None or self._usable(self.wanted, now_s):
            return self.wanted
        info = info_within(self._backends[self.wanted].info(), self._budgets[self.wanted], now_s)
        self.degraded = self._fallback != self.wanted
        self.why = f"{self.wanted} is {info.state}: {info.reason or 'failed just now'}"
        return self._fallback

    def _usable(self, backend: str, now_s: float) -> bool:
        ready = self._backends[backend].info().state is BackendState.READY
        return ready and self._budgets[backend].may_try(now_s)

    def _slate_backend(self) -> str:
        return self._fallback or self.wanted
