"""Which worker of a backend gets the next lane, and what a worker's failures cost it; pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Candidate", "Strikes", "in_order"]

LAST_S = 10.0
OUT_S = 60.0
WINDOW_S = 60.0
OUT_AFTER = 3


class Strikes:
    """What a worker did to its lanes: last in order for 10 s after each failure; out for 60 s
    after three in a minute."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque(maxlen=OUT_AFTER)

    def strike(self, now_s: float) -> None:
        """The worker lost or failed a lane. Lanes that fail together are one failure."""
        if not self._times_s or now_s - self._times_s[-1] >= 0.5:
            self._times_s.append(now_s)

    def recent(self, now_s: float) -> int:
        """How many count for the order now."""
        return sum(now_s - t < LAST_S for t in self._times_s)

    def out(self, now_s: float) -> bool:
        times = self._times_s
        if len(times) < OUT_AFTER or times[-1] - times[0] > WINDOW_S:
            return False
        return now_s - times[-1] < OUT_S


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker as the choice sees it. `host`: the machine it runs on."""

    name: str
    host: str
    free: int
    strikes: Strikes = field(compare=False)


def in_order(
    candidates: Iterable[Candidate], now_s: float, failed_host: str | None = None
) -> list[Candidate]:
    """Those to be asked for a lane, best first: unharmed, most free slots, fewest failures,
    another machine than the last failure's. Full ones come too: what a worker says of its slots
    is a hint, and only its own answer is sure."""
    known = list(candidates)
    usable = [c for c in known if not c.strikes.out(now_s)]
    return sorted(
        usable or known,  # the only one there is: whether to try it is for the backend's budget
        key=lambda c: (
            c.strikes.recent(now_s) > 0,
            -c.free,
            c.strikes.recent(now_s),
            c.host == failed_host,
            c.name,
        ),
    )
