"""When to ask again for lost packets: at once, then once a round trip until given up. Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["NackSchedule"]

_LEAST_S = 0.02
_MOST_S = 0.1
_SMOOTHING = 0.8
MOST_ASKED = 128
"""Sequence numbers in one report: what a sender with a short history may still have."""


class NackSchedule:
    """Generic NACKs (RFC 4585 section 6.2.1) repeated each max(round trip, 20 ms).

    The round trip is learned from the time between the first request for a packet and its arrival.
    """

    def __init__(self) -> None:
        self._asked_s: dict[int, tuple[float, float]] = {}  # first and last request
        self._round_trip_s = _LEAST_S

    @property
    def round_trip_s(self) -> float:
        """How long a repeated packet takes to come; also the time between two requests for it."""
        return min(max(self._round_trip_s, _LEAST_S), _MOST_S)

    def due(self, missing: Sequence[int], now_s: float) -> list[int]:
        """Those of `missing` to be asked for now; what is missing no more is forgotten."""
        wanted = list(missing[:MOST_ASKED])
        self._asked_s = {s: self._asked_s[s] for s in wanted if s in self._asked_s}
        due = []
        for sequence in wanted:
            first_s, last_s = self._asked_s.get(sequence, (now_s, None))
            # The tolerance keeps a timer that fires a little early from skipping a turn.
            if last_s is None or now_s - last_s >= self.round_trip_s - 0.002:
                self._asked_s[sequence] = (first_s, now_s)
                due.append(sequence)
        return due

    def arrived(self, sequence: int, now_s: float) -> None:
        """A packet came; if it had been asked for, the round trip is learned from it."""
        asked = self._asked_s.pop(sequence, None)
        # After a second request nobody knows which one was answered (Karn's algorithm).
        if asked is not None and asked[0] == asked[1]:
            sample_s = now_s - asked[0]
            self._round_trip_s = _SMOOTHING * self._round_trip_s + (1 - _SMOOTHING) * sample_s
