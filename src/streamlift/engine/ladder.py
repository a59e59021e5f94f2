"""When the CPU path steps down under load and up again: pure decisions, and how to apply them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol, runtime_checkable

from streamlift.clock import Clock
from streamlift.frames import Stabilise
from streamlift.upscalers.compact import Effort

__all__ = ["FAST_PRESET", "Adjustable", "Ladder", "PresetChoice", "Rung", "Steadier", "take_rung"]

FAST_PRESET = "ultrafast"
"""x264's cheapest: half the time of superfast. At the same rate it codes 2 dB worse, which is 0.3
to 0.7 dB of what is seen, more than any other step costs for its time."""

BUSY_S = 0.2
"""A picture that waited so long for its encoder is half way to being skipped."""

STRAINED_S = 0.5
"""Drops that go on for this long mean that the machine cannot keep up."""

RELIEF_S = 1.0
"""A pause between drops that ends a strain: a hiccup is not a lack of speed."""

QUIET_S = 30.0
LONGEST_QUIET_S = 240.0


class Rung(IntEnum):
    """How much is spent on a frame, most first, by picture lost for the time won.

    All but FULL search for motion at half size where the bitstream tells none. FAST_CODING takes
    the cheapest preset of the encoder. BICUBIC must be shown as degraded.
    """

    FULL = 0
    UNSTEADIED = 1
    SMALL = 2
    FAST_CODING = 3
    BICUBIC = 4


class Ladder:
    """One stream's step: down after half a second of drops, up after 30 s without.

    When a step up brings drops back within those 30 s, the next one waits twice as long, to at
    most 4 minutes. Feed it every drop and every delivered frame; it reads only the clock.
    """

    def __init__(
        self, clock: Clock, *, begin: Rung = Rung.FULL, without: Sequence[Rung] = ()
    ) -> None:
        """`begin`: where the machine's plan begins; `without`: what is no step for this stream, as
        UNSTEADIED where nothing steadies."""
        self._rungs = [rung for rung in Rung if rung not in without]
        self.rung = min(rung for rung in self._rungs if rung >= begin)
        self._clock = clock
        self._strain_began_s: float | None = None
        self._last_drop_s = clock.now_s()
        self._changed_s = clock.now_s()
        self._went_up = False
        self._quiet_s = QUIET_S

    def note_drops(self, count: int = 1) -> Rung | None:
        """Frames were dropped because the queue was late; the new rung if it changed."""
        if count < 1:
            return None
        now_s = self._clock.now_s()
        if self._strain_began_s is None or now_s - self._last_drop_s > RELIEF_S:
            self._strain_began_s = now_s
        self._last_drop_s = now_s
        if now_s - self._strain_began_s < STRAINED_S or self.rung is Rung.BICUBIC:
            return None
        if self._went_up and now_s - self._changed_s < QUIET_S:
            self._quiet_s = min(LONGEST_QUIET_S, self._quiet_s * 2)
        return self._move(+1)

    def note_frame(self) -> Rung | None:
        """A frame was delivered in time; the new rung if it changed."""
        now_s = self._clock.now_s()
        quiet_since_s = max(self._last_drop_s, self._changed_s)
        if now_s - quiet_since_s < self._quiet_s:
            return None
        if self.rung is self._rungs[0]:
            self._quiet_s = QUIET_S
            return None
        return self._move(-1)

    @property
    def degraded(self) -> bool:
        return self.rung is Rung.BICUBIC

    def _move(self, steps: int) -> Rung:
        self.rung = self._rungs[self._rungs.index(self.rung) + steps]
        self._changed_s = self._clock.now_s()
        self._strain_began_s = None
        self._went_up = steps < 0
        return self.rung


class PresetChoice:
    """Which preset the next picture is coded with: a busy encoder takes the fastest for a while.

    Every change costs a keyframe, so it goes back only after half a minute without haste.
    """

    def __init__(self, clock: Clock, preset: str) -> None:
        self.preset = preset
        """What is wanted while there is time."""
        self.hurried = False
        """Told to take the fastest, whatever the encoder has to do."""
        self._clock = clock
        self._busy_s: float | None = None

    @property
    def fastest(self) -> bool:
        """Whether pictures are coded in the fastest way already."""
        return self.hurried or self._busy_s is not None or self.preset == FAST_PRESET

    def next(self, waited_s: float) -> str:
        """`waited_s`: how long the picture has waited for its encoder."""
        now_s = self._clock.now_s()
        if waited_s > BUSY_S:
            self._busy_s = now_s
        elif self._busy_s is not None and now_s - self._busy_s > QUIET_S:
            self._busy_s = None
        return FAST_PRESET if self.hurried or self._busy_s is not None else self.preset


@runtime_checkable
class Adjustable(Protocol):
    """A session that can spend less on a frame, as `compact`'s."""

    effort: Effort


class Steadier(Protocol):
    """What of a stabiliser the ladder turns."""

    half_flow: bool
    strength: Stabilise


def take_rung(
    rung: Rung, *, session: object, stabiliser: Steadier | None, strength: Stabilise
) -> None:
    """Set a stream's stabiliser and session to a rung; `strength` is what the stream asked for."""
    if stabiliser is not None:
        stabiliser.half_flow = rung > Rung.FULL
        stabiliser.strength = Stabilise.OFF if rung >= Rung.UNSTEADIED else strength
    if isinstance(session, Adjustable):
        session.effort = _EFFORTS.get(rung, Effort.FULL)


_EFFORTS = {
    Rung.SMALL: Effort.SMALL,
    Rung.FAST_CODING: Effort.SMALL,
    Rung.BICUBIC: Effort.BICUBIC,
}
