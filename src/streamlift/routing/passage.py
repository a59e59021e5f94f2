"""The transition that is under way on a stream, if one is: one object until it is over."""

from __future__ import annotations

from streamlift.clock import Clock
from streamlift.routing.counts import Counts
from streamlift.routing.journal import Journal
from streamlift.routing.open_lane import OpenLane
from streamlift.routing.preference import Preference
from streamlift.routing.transition import Kind, Phase, Step, Transition

__all__ = ["Passage"]


class Passage:
    """Begins and ends transitions, and tells of it; at most one at a time."""

    def __init__(
        self, preference: Preference, counts: Counts, journal: Journal, clock: Clock
    ) -> None:
        self.move: Transition | None = None
        self._preference = preference
        self._counts = counts
        self._journal = journal
        self._clock = clock

    @property
    def newcomer(self) -> OpenLane | None:
        """The lane that is to be shown next."""
        return self.move.lane if self.move is not None and self.move.coming else None

    @property
    def successor(self) -> OpenLane | None:
        """The newcomer, if the shown lane gets no frames any more."""
        return None if self.switch is not None else self.newcomer

    @property
    def switch(self) -> Transition | None:
        """The switch that is under way, as long as both lanes are fed and it can be given up."""
        move = self.move
        if move is None or move.kind is not Kind.SWITCH:
            return None
        return move if move.phase in (Phase.OPENING, Phase.PROVING) else None

    @property
    def switching_to(self) -> OpenLane | None:
        """The lane that a switch is moving to, until its cut; the shown one is held back for it."""
        move = self.move
        return self.newcomer if move is not None and move.kind is Kind.SWITCH else None

    def begin(self, move: Transition) -> None:
        """A new lane is to be shown."""
        if self.move is not None:  # landing: its pictures are on their way to the viewers
            self._land(self.move, None)
        self.move = move
        self._journal.began(move)

    def seen(self, lane: OpenLane) -> None:
        """A picture of the shown lane went out; the first one completes a transition."""
        move = self.move
        if move is None or move.phase is not Phase.LANDING or move.lane is not lane:
            return
        now_s = self._clock.now_s()
        self._preference.shown(lane.backend, now_s)
        self._land(move, None if move.last_s is None else now_s - move.last_s)

    def give_up_switch(self, reason: str, *, back: bool = False) -> None:
        """Leave a switch, if one is under way; the shown lane stays.

        `back`: what was wanted before it was asked for is wanted again.
        """
        move = self.switch
        if move is None:
            return
        move.lane.retire()
        self._preference.gave_up(self._clock.now_s(), move.back_to if back else None)
        self._abandon(move, reason)

    def give_up_succession(self, reason: str) -> None:
        """Leave a succession, and what its lane still owes."""
        lane, move = self.successor, self.move
        if lane is None or move is None:
            return
        owed = lane.give_up()
        if owed:
            self._counts.drop("superseded", len(owed))
        if move.kind is Kind.SWITCH:
            self._preference.gave_up(self._clock.now_s(), move.back_to)
        self._abandon(move, reason)

    def turned_away(self) -> None:
        """There is no slot for the lane that was to be opened, and no other is tried."""
        if self.move is not None:
            self._abandon(self.move, "no slot")

    def _abandon(self, move: Transition, reason: str) -> None:
        self.move = None
        move.take(Step.ABANDONED)
        self._journal.gave_up(move, reason)

    def _land(self, move: Transition, gap_s: float | None) -> None:
        self.move = None
        move.take(Step.SEEN)
        self._journal.landed(move, gap_s)
