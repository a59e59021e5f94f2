"""When to ask again for lost packets: at once, then each round trip until given up. Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["NackSchedule"]

_LEAST_S = 0.02
_MOST_S = 0.5
_SMOOTHING = 0.8
_LONGEST_S = 2.0
"""A packet that comes later than this was not sent because it was asked for."""
MOST_ASKED = 128
"""Sequence numbers in one report: what a sender with a short history may still have."""


class NackSchedule:
    """Generic NACKs (RFC 4585 section 6.2.1), repeated each round trip, at least 20 ms.

    The round trip is told by `note_round_trip`, and learned from the time between the first
    request for a packet and its arrival: nearly always it is the first that was answered. While
    nothing is known, waits double, so that a sender far away does not repeat a packet ten times.
    """

    def __init__(self) -> None:
        self._asked: dict[int, tuple[float, float, int]] = {}  # first, last, how often
        self._round_trip_s: float | None = None

    @property
    def round_trip_s(self) -> float:
        """How long a repeated packet takes to come; 0 while that is not known."""
        return self._round_trip_s or 0.0

    def note_round_trip(self, seconds: float) -> None:
        """Measured by other means."""
        if self._round_trip_s is None:
            self._round_trip_s = seconds
        else:
            kept = _SMOOTHING * self._round_trip_s
            self._round_trip_s = kept + (1 - _SMOOTHING) * seconds

    def forget(self) -> None:
        """Another RTP stream begins: its numbers mean other packets."""
        self._asked.clear()

    def due(self, missing: Sequence[int], now_s: float) -> list[int]:
        """Those of `missing` to be asked for now; what is missing no more is forgotten."""
        wanted = list(missing[:MOST_ASKED])
        self._asked = {s: self._asked[s] for s in wanted if s in self._asked}
        due = []
        for sequence in wanted:
            first_s, last_s, times = self._asked.get(sequence, (now_s, None, 0))
            # The tolerance keeps a timer that fires a little early from skipping a turn.
            if last_s is None or now_s - last_s >= self._wait_s(times) - 0.002:
                self._asked[sequence] = (first_s, now_s, times + 1)
                due.append(sequence)
        return due

    def arrived(self, sequence: int, now_s: float) -> None:
        """A packet came; if it had been asked for, the round trip is learned from it."""
        asked = self._asked.pop(sequence, None)
        if asked is not None and now_s - asked[0] <= _LONGEST_S:
            self.note_round_trip(now_s - asked[0])

    def _wait_s(self, times: int) -> float:
        """How long after the request number `times` the next one may go out."""
        known = self._round_trip_s
        wait_s = _LEAST_S * 2 ** min(times - 1, 8) if known is None else max(known, _LEAST_S)
        return min(wait_s, _MOST_S)
