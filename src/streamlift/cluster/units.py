"""Decides frame by frame: does a lane send the publisher's access unit, or the picture; pure."""

from __future__ import annotations

from collections.abc import Collection

from streamlift.frames import Codec, Frame

__all__ = ["UnitPlan"]

ASK_EVERY_S = 0.5
STARVED_S = 5.0
"""How long a publisher is asked that often; one that makes no keyframe is asked each 5 s."""
MOST_UNIT_BYTES = 1024 * 1024 - 1024
"""A worker ends a lane for a unit of more than a MiB, its other fields included; a publisher may
send larger ones."""


class UnitPlan:
    """An access unit can be sent if it follows the last one that was, or is a keyframe.

    Until then pictures are sent, and the publisher is to be asked for a keyframe (`ask`), once in
    half a second; once in five when five have brought none, and pictures go on. A unit that is too
    large for the wire goes as a picture, too. A publisher whose pictures are shown in another order
    than they are coded gets no further questions: of his stream only pictures can be sent, whatever
    keyframes he makes.
    `codecs`: what the worker decodes; none on a link that carries pictures only.
    """

    def __init__(self, codecs: Collection[Codec] = ()) -> None:
        self._codecs = frozenset(codecs)
        self._last: int | None = None  # number of the last unit sent; None: the chain is broken
        self._highest = -1
        self._reordered = False
        self._asked_s = float("-inf")
        self._starving_since_s: float | None = None
        self.ask = False

    def sends_unit(self, frame: Frame, now_s: float) -> bool:
        """Whether this frame goes as its access unit; sets `ask`."""
        self.ask = False
        coded = frame.coded
        if coded is None or coded.codec not in self._codecs:
            self._last, self._starving_since_s = None, None
            return False
        if coded.number < self._highest and not coded.keyframe:
            self._reordered = True
        self._highest = coded.number
        follows = self._last is not None and coded.number == self._last + 1
        fits = len(coded.data) <= MOST_UNIT_BYTES
        if not self._reordered and fits and (follows or coded.keyframe):
            self._last, self._starving_since_s = coded.number, None
            return True
        self._last = None
        if self._reordered:
            self._starving_since_s = None
            return False
        if self._starving_since_s is None:
            self._starving_since_s = now_s
        starved = now_s - self._starving_since_s > STARVED_S
        if now_s - self._asked_s >= (STARVED_S if starved else ASK_EVERY_S):
            self._asked_s, self.ask = now_s, True
        return False

    def broken(self) -> None:
        """A frame was left out, or the worker could not decode one."""
        self._last = None
