"""The lanes of one stream: the shown one, and at times a transition to the next.

Frames go to the *shown* lane; when there is reason to move, a second lane is opened, and a
`Transition` says when the picture moves to it. During a switch both are fed at first. Everything
else (another size, a returning publisher, a failed lane) is a succession: the old lane gets no
more frames, and those it still owed when it failed go to the new one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing, suppress

from streamlift.clock import Clock
from streamlift.errors import NoCapacity, reason_of
from streamlift.frames import EncodedFrame, Frame, LaneOptions, Rendition, Size, Unencoded
from streamlift.routing.backends import BackendTable
from streamlift.routing.budgets import FaultKind, fault_kind
from streamlift.routing.counts import Counts
from streamlift.routing.events import EventKind
from streamlift.routing.fanout import Fanout
from streamlift.routing.journal import Journal
from streamlift.routing.open_lane import Delivered, OpenLane, Purpose
from streamlift.routing.passage import Passage
from streamlift.routing.preference import Preference, Request
from streamlift.routing.screen import Screen
from streamlift.routing.transition import Cause, Kind, Move, Step, SwitchMode, Transition
from streamlift.tasks import supervise

__all__ = ["Lanes"]

log = logging.getLogger(__name__)

TICK_S = 0.05
ABORT_S = 10.0
REOPEN_S = 0.25
"""Before a failed fallback is opened again."""
OPENING_S = 5.0
"""A backend that says it is ready must have a lane open by then; a newcomer has `ABORT_S`."""


class Lanes:
    """Opens a stream's lanes, feeds them, and shows one. Owns a task for each, to its end.

    Nothing here waits but `drain` and the tasks. What lanes deliver goes to `fanout`, what they
    do to `counts` and `journal`. `options` says what to ask of a lane that is opened now.
    """

    def __init__(
        self,
        wanted: str,
        table: BackendTable,
        *,
        options: Callable[[], LaneOptions],
        fanout: Fanout,
        counts: Counts,
        journal: Journal,
        clock: Clock,
        max_age_s: float,
    ) -> None:
        self.preference = Preference(wanted, table, journal.stream)
        self.refusal: NoCapacity | None = None  # there was no slot for the publisher's first lane
        self._table = table
        self._options = options
        self._fanout = fanout
        self._counts = counts
        self._journal = journal
        self._clock = clock
        self._screen = Screen(fanout, counts, journal, clock, max_age_s=max_age_s)
        self._passage = Passage(self.preference, counts, journal, clock)
        self._open: set[OpenLane] = set()
        self._mode = SwitchMode.LOW_LATENCY
        self._wake = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None

    # What the stream asks.

    @property
    def backend(self) -> str:
        """The backend whose pictures are shown, or will be."""
        front = self._front()
        return self.preference.wanted if front is None or front.purpose.slate else front.backend

    @property
    def degraded(self) -> str | None:
        """Why viewers see less than they should, if they do."""
        if self.preference.degraded:
            return self.preference.why
        return None if self._screen.shown is None else self._screen.shown.strained

    @property
    def can_spend_less(self) -> bool:
        """Whether the shown lane has a cheaper way of its own to keep up."""
        return self._screen.shown is not None and self._screen.shown.can_spend_less

    @property
    def upscaled(self) -> int:
        """Pictures that came out of the models of the lanes that are open now."""
        return sum(lane.upscaled for lane in self._open)

    @property
    def dropped(self) -> Counter[str]:
        """Drops of the lanes that are open now, by reason."""
        return sum((lane.dropped for lane in self._open), Counter())

    async def run(self) -> None:
        """Play out, and watch lanes and deadlines; ends by cancellation, and all lanes with it."""
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._play())
            await self._watch()

    def offer(self, frame: Frame, *, slate: bool = False, admission: bool = False) -> None:
        """Hand a frame to the lane that is to show it, and during a switch to both.

        `admission`: without a slot for it the publisher is refused (`refusal`), instead of
        falling back.
        """
        now_s, front = self._clock.now_s(), self._front()
        if front is None or not front.takes(frame.size, slate):
            front = self._succeed(front, frame.size, Purpose(slate=slate, admission=admission))
        if not front.offer(frame, now_s):
            self._counts.drop("stale")
        if (switch := self._passage.switch) is not None:
            switch.lane.offer(frame, now_s)

    def switch(self, backend: str, mode: SwitchMode | None, reason: str) -> None:
        """Move to another backend; the last request wins. Returns at once."""
        self._mode = mode or self._mode
        before = self.preference.wanted
        self.preference.want(backend)
        if (switch := self._passage.switch) is not None:
            if switch.after == backend:
                return
            before = switch.back_to or before
            self._passage.give_up_switch("superseded by a later request")
        front = self._front()
        if front is None or front.purpose.slate or front.finished:
            self.preference.degraded = False
            self._journal.tell(
                EventKind.SWITCHED, before=before, after=backend, reason="no picture now"
            )
        elif front.backend == backend:
            self.preference.degraded = False
        else:
            self.preference.request = Request(reason, before)
            self._move_to_wanted()

    def request_keyframe(self) -> None:
        if (shown := self._screen.shown) is not None and shown.alive:
            shown.request_keyframe()

    def set_renditions(self, wanted: frozenset[Rendition]) -> None:
        for lane in self._open:
            lane.set_renditions(wanted)

    def finish(self) -> None:
        """No more frames come: the shown lane drains and ends by itself."""
        self._passage.give_up_switch("no more frames")
        if (front := self._front()) is not None:
            front.finish(self._clock.now_s())

    def park(self) -> None:
        """Nobody watches and no frames come: the shown lane keeps its place, not its memory."""
        self._passage.give_up_switch("no more frames")
        if (front := self._front()) is not None and not front.finished:
            front.park()

    async def drain(self, timeout_s: float) -> None:
        """Finish, give the lanes `timeout_s` to deliver what they owe, then end them."""
        self.finish()
        tasks = [lane.task for lane in self._open if lane.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        self._turn()
        self._screen.flush()
        for lane in tuple(self._open):
            lane.retire()

    # From lane to lane.

    def _front(self) -> OpenLane | None:
        """The lane that a new frame is meant for first."""
        return self._passage.successor or self._screen.shown

    def _succeed(self, old: OpenLane | None, size: Size, purpose: Purpose) -> OpenLane:
        """Finish the lane before and open the next one, for another size, publisher or slate."""
        self._passage.give_up_switch("the lane before ended")
        self._settle()
        if old is not None:
            old.finish(self._clock.now_s())
        name = self.preference.for_slate() if purpose.slate else self.preference.for_new_lane()
        move = self._new(Kind.SUCCESSION, Cause.ROUTINE, name, size, purpose)
        return self._begin(move, "slate" if purpose.slate else "new lane")

    def _move_to_wanted(self) -> None:
        """Begin a switch to the wanted backend, if it is time for it and nothing else moves."""
        shown, now_s = self._screen.shown, self._clock.now_s()
        if self._passage.move is not None or shown is None or not shown.takes(shown.size, False):
            return
        leaving = shown.leaving
        if not shown.alive or not self.preference.due(shown.backend, shown.calm, now_s, leaving):
            return
        request, self.preference.request = self.preference.request, None
        cause = Cause.RETURN if request is None else Cause.ASKED
        purpose = Purpose(proving=True)
        move = self._new(Kind.SWITCH, cause, self.preference.target, shown.size, purpose)
        move.back_to = None if request is None else request.before
        why = "its worker is about to end" if leaving else "trying again"
        self._begin(move, why if request is None else request.reason)

    def _new(self, kind: Kind, cause: Cause, name: str, size: Size, purpose: Purpose) -> Transition:
        """A transition from the shown lane to a new one."""
        shown = self._screen.shown
        lane = OpenLane(name, self._table.claim(name), size, purpose)
        before = None if shown is None else shown.backend
        return Transition(kind, cause, lane, before=before, began_s=self._clock.now_s())

    def _begin(self, move: Transition, reason: str) -> OpenLane:
        """Open the transition's lane; frames can be offered to it at once."""
        move.reason = reason
        lane, shown = move.lane, self._screen.shown
        predecessor = shown if shown is not None and shown.backend == lane.backend else None
        within_s = ABORT_S if move.kind is Kind.SWITCH else OPENING_S
        self._passage.begin(move)
        self._open.add(lane)
        assert self._tasks is not None  # frames and requests come while it runs
        lane.task = self._tasks.create_task(self._live(lane, predecessor, within_s))
        lane.task.add_done_callback(lambda _: self._ended(lane))  # also if it never started
        return lane

    def _settle(self, reason: str = "another lane is due") -> None:
        """Another succession is due before this one is done: show what there is, or give it up."""
        lane, move = self._passage.successor, self._passage.move
        if lane is None or move is None:
            return
        key = lane.first_key(self._screen.last_pts, self._clock.now_s())
        if key is None:
            self._passage.give_up_succession(reason)
        else:
            self._cut(move, key)
            self._turn()

    def _turn(self) -> None:
        """Something happened: move the picture if it can move now, put out what is due."""
        self._consider()
        while group := self._screen.show_next(self._passage.switching_to):
            if group[0].leads:
                self._passage.seen(group[0].lane)
            self._consider()
        if self._screen.wait_s(self._passage.switching_to) is not None:
            self._wake.set()

    def _consider(self) -> None:
        """Look whether the picture can move to the newcomer now."""
        lane, move = self._passage.newcomer, self._passage.move
        if lane is None or move is None:
            return
        now_s = self._clock.now_s()
        key = lane.first_key(self._screen.last_pts, now_s)
        what = move.consider(self._screen.facts(lane, key, self._mode))
        if what is Move.HAND_OVER:
            lane.encode(self._options().renditions)
            self._screen.hand_over()
        elif what is Move.CUT and key is not None:
            self._cut(move, key)

    def _cut(self, move: Transition, key: int) -> None:
        """From its keyframe on, the newcomer is the shown lane."""
        move.take(Step.CUT)
        move.last_s = self._screen.last_s
        constant = self._mode is SwitchMode.CONSTANT_LATENCY
        self._screen.cut(move.lane, key, keep_delay=constant and move.kind is Kind.SWITCH)

    # A lane's life.

    async def _live(self, lane: OpenLane, predecessor: OpenLane | None, within_s: float) -> None:
        what = f"stream {self._journal.stream}: lane on {lane.backend}"
        await supervise(what, self._carry(lane, predecessor, within_s))

    async def _carry(self, lane: OpenLane, predecessor: OpenLane | None, within_s: float) -> None:
        try:
            await lane.open(self._options, predecessor, within_s)
            async with aclosing(lane.frames(self._clock.now_s)) as frames:
                async for encoded in frames:
                    self._arrived(lane, encoded)
        except NoCapacity as error:
            self._turned_away(lane, error)
        except Exception as error:  # noqa: BLE001 - whatever a backend raises ends only its lane
            self._failed(lane, error)  # before closing, which may take its time
        finally:
            self._counts.lane_gone(lane.upscaled, lane.dropped)
            await lane.close()

    def _ended(self, lane: OpenLane) -> None:
        lane.alive = False
        self._open.discard(lane)
        self._turn()

    def _arrived(self, lane: OpenLane, encoded: EncodedFrame | Unencoded) -> None:
        now_s = self._clock.now_s()
        if isinstance(encoded, Unencoded):
            lane.returned(encoded.pts, now_s, self._screen.encode_s)
        else:
            self._delivered(Delivered(encoded, lane, self._fanout.leads(encoded)), now_s)
        self._turn()

    def _delivered(self, one: Delivered, now_s: float) -> None:
        if one.leads:
            one.lane.returned(one.pts, now_s)
        if one.lane is self._screen.shown:
            self._screen.put(one)
        elif one.lane is self._passage.newcomer:
            one.lane.hold(one, now_s)

    # Faults.

    def _turned_away(self, lane: OpenLane, error: NoCapacity) -> None:
        """A lane was refused; at the publisher's start that is the publisher's to know."""
        if not lane.purpose.admission:
            self._failed(lane, error)
            return
        if lane is self._passage.newcomer:
            self._passage.turned_away()
        self.refusal = error

    def _failed(self, lane: OpenLane, error: Exception) -> None:
        """A lane failed: a newcomer of a switch is given up, any other is replaced."""
        if not lane.alive:
            return  # already replaced
        kind, reason = fault_kind(error), reason_of(error)
        log.warning("stream %s: %s: %s: %s", self._journal.stream, lane.backend, kind, reason)
        if kind.counts:
            self._charge(lane.backend, reason)
        if lane is self._front() and not lane.finished:
            self._replace(lane, kind, f"{kind}: {reason}")
            return
        lane.alive = False
        self._journal.fault(lane.backend, kind, None, f"{kind}: {reason}")
        if lane is self._passage.successor:
            self._settle(reason)
        elif lane is self._passage.newcomer:
            self._passage.give_up_switch(reason, back=True)

    def _charge(self, backend: str, reason: str) -> None:
        """Count a fault, and have the backend probed when it is time to know whose it is."""
        stream = self._journal.stream
        if self._table.charge(backend, stream, reason) and self._tasks is not None:
            probe = self._table.probe(backend)
            self._tasks.create_task(supervise(f"stream {stream}: probe of {backend}", probe))

    def _replace(self, lane: OpenLane, kind: FaultKind, reason: str) -> None:
        """Open a lane on the fallback backend and give it all that the failed one owed."""
        self._passage.give_up_switch(f"{lane.backend} failed meanwhile")
        owed = lane.give_up()
        self._settle(reason)
        name = self.preference.after_fault(lane.backend, reason)
        self._journal.fault(lane.backend, kind, name, reason)
        after_s = REOPEN_S if lane.backend == name else 0.0
        purpose = Purpose(slate=lane.purpose.slate, replaces=True, after_s=after_s)
        move = self._new(Kind.SUCCESSION, Cause.FAULT, name, lane.size, purpose)
        move.before = lane.backend
        follower = self._begin(move, reason)
        for frame in owed:
            follower.offer(frame, self._clock.now_s())

    # What is due by time.

    async def _play(self) -> None:
        """Put out what is pending as it becomes due."""
        while True:
            self._turn()
            self._wake.clear()
            wait_s = self._screen.wait_s(self._passage.switching_to)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

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
        front, switch = self._front(), self._passage.switch
        if front is not None and front.hung(now_s):
            front.tell_hung()
            self._failed(front, TimeoutError("no answer"))
        elif switch is not None and now_s - switch.began_s > ABORT_S:
            reason = f"no picture in step within {ABORT_S:g} s"
            self._passage.give_up_switch(reason, back=True)
        self._turn()
        self._move_to_wanted()
