"""What of a running stream may be changed, and how far a change of its target size has come."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from streamlift.clock import Clock
from streamlift.frames import Size, Stabilise, Target
from streamlift.routing.counts import Counts
from streamlift.routing.fanout import Fanout
from streamlift.routing.journal import Journal
from streamlift.routing.settings import Idle, StreamSettings

__all__ = ["Change", "Tuning"]

GIVEN_UP_S = 10.0
"""Without a picture in the new size for so long, the old one is wanted again."""
NOTHING_SHOWN = "; no picture now"


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be otherwise; None leaves a setting as it is.

    `retarget`: `target` is to be taken, and be it None, the backend's own.
    """

    bitrate_bps: int | None = None
    stabilise: Stabilise | None = None
    idle: Idle | None = None
    retarget: bool = False
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class _Move:
    """A change of target that nobody has seen yet. `shown`: pictures that went out before it."""

    before: Target | None
    backend: str
    began_s: float
    shown: int


class Tuning:
    """Owns a stream's settings. `told` is called when the way to encode changes.

    A change of target is told as a switch from a backend to itself: the lane goes on, so that no
    picture is lost and no second place is needed, and its next picture comes in the new size. Until
    that is out the old size is shown; if it does not come, the old one is wanted again.
    """

    def __init__(
        self,
        settings: StreamSettings,
        fanout: Fanout,
        counts: Counts,
        journal: Journal,
        clock: Clock,
        told: Callable[[], None],
    ) -> None:
        self.settings = settings
        self._fanout = fanout
        self._counts = counts
        self._journal = journal
        self._clock = clock
        self._told = told
        self._move: _Move | None = None

    @property
    def target(self) -> Target | None:
        """The size that is wanted; None for the backend's own."""
        return self.settings.rendition.target

    def apply(self, change: Change, backend: str) -> bool:
        """Take a change, of a stream that `backend` shows; True if a new lane is needed for it.

        Raises UnsupportedSize, and then nothing has changed.
        """
        source = self._source
        if change.retarget and change.target is not None and source is not None:
            change.target.check(source)
        restart = change.stabilise not in (None, self.settings.stabilise)
        self.settings = dataclasses.replace(
            self.settings,
            stabilise=change.stabilise or self.settings.stabilise,
            idle=change.idle or self.settings.idle,
        )
        if change.retarget and change.target != self.target:
            self._begin(change.target, backend)
        if change.bitrate_bps is not None:
            self._encode(bitrate_bps=change.bitrate_bps)
        self._told()
        return restart

    def tend(self) -> None:
        """Tell of a change of target that has arrived, or take it back where it does not."""
        move, now_s = self._move, self._clock.now_s()
        if move is None:
            return
        last = self._counts.last_out
        going_out = self._counts.shown_frames > move.shown
        if last is not None and going_out and last.rendition.target == self.target:
            self._settled(move, "", self._counts.retarget_gap_s)
        elif now_s - move.began_s > GIVEN_UP_S:
            if going_out:
                self._give_up(move)
            else:
                self._settled(move, NOTHING_SHOWN)

    @property
    def _source(self) -> Size | None:
        last = self._counts.last_in
        return None if last is None else last.size

    def _begin(self, target: Target | None, backend: str) -> None:
        former = self._move
        before = self.target if former is None else former.before
        if former is not None:
            self._journal.resize_given_up(former.backend, "superseded by a later request")
        self._encode(target=target)
        now_s = self._clock.now_s()
        self._move = _Move(before, backend, now_s, self._counts.shown_frames)
        self._journal.resizing(backend, self._words(target))
        self._counts.retarget_gap_s = None
        if not self._counts.showing(now_s):
            self._settled(self._move, NOTHING_SHOWN)

    def _settled(self, move: _Move, but: str, gap_s: float | None = None) -> None:
        self._move = None
        self._journal.resized(move.backend, self._words(self.target) + but, gap_s)

    def _give_up(self, move: _Move) -> None:
        self._move = None
        reason = f"{self._words(self.target)}: no such picture within {GIVEN_UP_S:g} s"
        self._encode(target=move.before)
        self._journal.resize_given_up(move.backend, reason)
        self._told()

    def _encode(self, **changes: object) -> None:
        rendition = dataclasses.replace(self.settings.rendition, **changes)  # type: ignore[arg-type]
        self.settings = dataclasses.replace(self.settings, rendition=rendition)
        self._fanout.rendition = rendition

    def _words(self, target: Target | None) -> str:
        """For people: "target 1280x720", "target 1.5 times 512x512: 768x768"."""
        if target is None:
            return "target: the backend's own size"
        source = self._source
        if target.size is not None or source is None:
            return f"target {target}"
        return f"target {target} {source}: {target.output(source)}"
