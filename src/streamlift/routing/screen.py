"""What viewers see now: the shown lane, and the way of its pictures to them."""

from __future__ import annotations

from streamlift.clock import Clock
from streamlift.routing.counts import Counts
from streamlift.routing.fanout import Fanout
from streamlift.routing.journal import Journal
from streamlift.routing.open_lane import Delivered, OpenLane
from streamlift.routing.playout import Playout
from streamlift.routing.states import StreamEvent
from streamlift.routing.transition import SwitchMode, TransitionFacts, hold_offset

__all__ = ["Screen"]

MAX_AGE_S, CHUNKED_AGE_S = 0.5, 1.2


class Screen:
    """Paces the shown lane's pictures, and cuts to another lane when told to.

    `newcomer`, where it is a parameter, is the lane of a switch that is under way: the shown one
    is held back for it.
    """

    def __init__(
        self,
        fanout: Fanout,
        counts: Counts,
        journal: Journal,
        clock: Clock,
        *,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        """`max_age_s`: for how long no picture waits here any more, once it is due."""
        self.shown: OpenLane | None = None
        self._fanout = fanout
        self._counts = counts
        self._journal = journal
        self._clock = clock
        self._playout = Playout()
        self._max_age_s = max_age_s
        self._held_back_s = 0.0  # delay kept by constant latency
        self._encode_s = 0.0
        self._last_offset: float | None = None  # of the shown lane, since it gets no more frames

    @property
    def last_pts(self) -> int | None:
        """The last picture that went out."""
        return self._playout.last_pts

    @property
    def last_s(self) -> float | None:
        """When it went out."""
        return self._playout.last_s

    @property
    def encode_s(self) -> float:
        """What encoding took of the last picture: it stands for that of a lane on trial."""
        return self._encode_s

    def put(self, one: Delivered) -> None:
        """A frame of the shown lane is ready."""
        self._playout.put(one)

    def show_next(self, newcomer: OpenLane | None) -> list[Delivered]:
        """Put out the next picture that is due; returns its frames, none if nothing is due."""
        group = self._playout.take(self._clock.now_s(), self._aim(newcomer))
        for one in group:
            self._show(one)
        return group

    def wait_s(self, newcomer: OpenLane | None) -> float | None:
        """Seconds until the next picture is due; None while there is none."""
        return self._playout.wait_s(self._clock.now_s(), self._aim(newcomer))

    def flush(self) -> None:
        """Put out everything now; for the end of a stream."""
        for one in self._playout.take_all(self._clock.now_s()):
            self._show(one)

    def facts(self, lane: OpenLane, key: int | None, mode: SwitchMode) -> TransitionFacts:
        """Where `lane`, which is to be shown from its keyframe `key` on, and the shown one are."""
        now_s, shown = self._clock.now_s(), self.shown
        return TransitionFacts(
            mode=mode,
            frames=lane.offsets.count,
            shown=self._playout.pace.offset,
            usual=None if shown is None else shown.offsets.middle,
            worst=None if shown is None else shown.offsets.high,
            high=lane.offsets.high,
            key_waited_s=None if key is None else now_s - lane.held_since_s,
            old_comes_first=key is not None and self._comes_before(key),
        )

    def hand_over(self) -> None:
        """No more frames go to the shown lane: it gives back at once what it held for look-ahead,
        but viewers see it at the pace that they are used to."""
        self._last_offset = self._playout.pace.offset
        if self.shown is not None:
            self.shown.finish(self._clock.now_s())

    def cut(self, lane: OpenLane, key: int, *, keep_delay: bool) -> None:
        """Show `lane` from its keyframe on; what the old one still had before it is skipped.

        `keep_delay`: a faster lane is held back to the delay that viewers are used to.
        """
        old, offset = self.shown, self._last_offset
        if offset is None:
            offset = self._playout.pace.offset
        skipped = {pts for pts in self._playout.forget() if pts < key}
        if old is not None:
            after = -1 if self.last_pts is None else self.last_pts
            skipped |= {frame.pts for frame in old.owed if after < frame.pts < key}
            old.retire()
        if skipped:
            self._counts.drop("switch", len(skipped))
            self._playout.pace.jump()
        # Whatever made the old one uneven may be the publisher; until the new one proves itself.
        lane.offsets.uneven |= old is not None and old.offsets.uneven
        saved_s = (offset or 0.0) - (lane.offsets.high or 0.0)
        self._held_back_s = max(0.0, saved_s) if keep_delay else 0.0
        self._last_offset = None
        self.shown = lane
        for one in lane.release_held():
            self._playout.put(one)

    def _comes_before(self, pts: int) -> bool:
        """Whether the shown lane has pending, or will deliver, pictures before this one."""
        if self._playout.pending_before(pts):
            return True
        return self.shown is not None and self.shown.owes_between(self.last_pts, pts)

    def _aim(self, newcomer: OpenLane | None) -> float | None:
        """The offset to pace the shown lane to; None: its frames go out at once."""
        shown = self.shown
        if shown is None or shown.purpose.slate:
            return None
        aim, high = shown.offsets.aim, shown.offsets.high or 0.0
        if self._held_back_s:
            aim = high + self._held_back_s
        if self._last_offset is not None:
            aim = self._last_offset if aim is None else max(aim, self._last_offset)
        if aim is not None and shown.due_offset is not None:
            # The outer bound of all queues: from here on even playout costs more than it gives.
            longest_s = max(CHUNKED_AGE_S, self._max_age_s) if shown.chunked else self._max_age_s
            aim = min(aim, shown.due_offset + longest_s + self._held_back_s)
        if newcomer is not None:
            coming = newcomer.offsets
            hold = hold_offset(coming.high, coming.spread, coming.count)
            if hold is not None and hold > high:
                return hold if aim is None else max(aim, hold)
        return aim

    def _show(self, one: Delivered) -> None:
        if not self._fanout.show(one):
            self._counts.drop("out_of_step")
        elif one.lane.purpose.slate:
            self._journal.slate_shown()
        elif one.leads:
            self._encode_s = one.encoded.stages.encode_s
            self._counts.sent(one.encoded, self._clock.now_s(), one.lane.backend)
            self._journal.apply(StreamEvent.PICTURE)
