"""Clocks that begin late, jump or step back, mended for picture and sound together.

Pure arithmetic in seconds. A source's clock may be another one from some packet on (a broadcast
that was joined, a counter that wrapped, a recorder that was restarted). Each such stretch is an
*epoch* with its own offset. A track moves to a new epoch when its times say so: to the newest
one if that fits, else it begins one that lets its next time follow the last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

__all__ = ["ClockMender"]

LARGEST_STEP_BACK_S = Fraction(1, 10)
LARGEST_JUMP_S = Fraction(10)
LARGEST_OVERLAP_S = Fraction(1)
"""How far a track that follows another into its epoch may step back: tracks are interleaved."""
LATEST_START_S = Fraction(60)
EARLIEST_START_S = Fraction(-1, 10)
"""Sound may begin a little early, for its decoder to get going; players cut that off."""


@dataclass(slots=True)
class _Track:
    epoch: int = 0
    end_s: Fraction | None = None
    """When its last packet ends, on the mended clock."""
    start_s: Fraction | None = None
    """When its last packet begins, on the mended clock."""


@dataclass(slots=True)
class ClockMender:
    """The offsets of one source.

    `jumps`: whether its form allows the clock to jump ahead (MPEG-TS, FLV), so that a gap of over
    10 s is one. `first_s`: the earliest time of any track. A clock that begins after a minute or
    before 0, or anywhere in a form whose clock has no beginning, is brought to 0. `mended` counts
    new epochs.
    """

    first_s: Fraction = Fraction(0)
    jumps: bool = False
    mended: int = 0
    _offsets: list[Fraction] = field(default_factory=list)
    _tracks: dict[int, _Track] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ordinary = EARLIEST_START_S <= self.first_s < LATEST_START_S
        strange = not ordinary or (self.jumps and self.first_s != 0)
        self._offsets = [-self.first_s if strange else Fraction(0)]

    @property
    def start_offset_s(self) -> Fraction:
        """What was added to every time from the beginning."""
        return self._offsets[0]

    def offset_s(self, track: int, time_s: Fraction | None, duration_s: Fraction) -> Fraction:
        """What to add to the times of this packet. `time_s`: its decoding time, if written."""
        state = self._tracks.setdefault(track, _Track())
        if time_s is None:
            return self._offsets[state.epoch]
        if not self._fits(state, time_s + self._offsets[state.epoch]):
            state.epoch = self._epoch_for(state, time_s)
        offset_s = self._offsets[state.epoch]
        state.start_s = time_s + offset_s
        state.end_s = state.start_s + max(duration_s, Fraction(0))
        return offset_s

    def _fits(
        self, state: _Track, mended_s: Fraction, back_s: Fraction = LARGEST_STEP_BACK_S
    ) -> bool:
        if state.start_s is None or state.end_s is None:
            return True
        if mended_s < state.start_s - back_s:
            return False
        return not self.jumps or mended_s <= state.end_s + LARGEST_JUMP_S

    def _epoch_for(self, state: _Track, time_s: Fraction) -> int:
        newest = len(self._offsets) - 1
        mended_s = time_s + self._offsets[newest]
        if newest > state.epoch and self._fits(state, mended_s, LARGEST_OVERLAP_S):
            return newest
        assert state.end_s is not None
        self._offsets.append(state.end_s - time_s)
        self.mended += 1
        return newest + 1
