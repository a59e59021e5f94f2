"""How much a backend can take, in low-resolution pixels a second, and who has which part of it.

Pure: no clock, no thread. One event loop uses it.
"""

from __future__ import annotations

import math

from streamlift.errors import NoCapacity
from streamlift.frames import Size, Slots, Target

__all__ = ["ASSUMED_FPS", "SLOT_PPS", "Capacity", "Need", "Share", "need_pps"]

ASSUMED_FPS = 25.0
"""A publisher's rate until it is measured."""
SLOT_PPS = 512 * 512 * ASSUMED_FPS
"""What one slot stands for: a stream of 512x512 at 25 fps, in pixels a second."""
LEAST_OF_STAND_IN = 0.25
CODED_PART = 0.4
"""Of a frame's time on a processor, what goes with the size that is encoded."""
TOLERANCE = 0.05
"""A measured rate is never exact: so much of a slot too little is still enough."""


def need_pps(size: Size, fps: float | None) -> float:
    """Pixels a second of a stream; None stands for a rate that was not measured yet."""
    return size.pixels * (fps or ASSUMED_FPS)


class Need:
    """What one stream needs of a backend.

    `scale`: the model's; `own`: the backend's target, for streams that ask for none. `codes`: the
    processor that upscales has to encode as well, so that the size of what goes out counts.
    """

    def __init__(self, scale: int = 2, *, own: Target | None = None, codes: bool = False) -> None:
        self.own = own
        self.wanted: Target | None = None
        """The stream's."""
        self._scale = scale
        self._codes = codes

    @property
    def target(self) -> Target | None:
        """The size that its pictures come out in; None for the model's."""
        return self.wanted or self.own

    def pps(self, size: Size, fps: float | None) -> float:
        """Low-resolution pixels a second, more or fewer where more or less is encoded than the
        model's own size."""
        pps, target = need_pps(size, fps), self.target
        if target is None or not self._codes:
            return pps
        larger = target.output(size).pixels / size.times(self._scale).pixels
        return pps * (1 + CODED_PART * (larger - 1))


class Capacity:
    """Whoever comes takes of what is free; what one was admitted with nobody takes away.

    An empty backend takes any stream, however large: it harms nobody there, and may serve it
    with fewer frames.
    """

    def __init__(self, total_pps: float) -> None:
        self.total_pps = total_pps
        self._shares: set[Share] = set()

    @property
    def used_pps(self) -> float:
        return sum(share.granted_pps for share in self._shares)

    @property
    def slots(self) -> Slots:
        """The same in whole slots: the total rounded down, what is used rounded up."""
        total = int(self.total_pps / SLOT_PPS + TOLERANCE)
        used = math.ceil(self.used_pps / SLOT_PPS - TOLERANCE)
        least = 1 if self.used_pps > 0 else 0
        return Slots(total=total, used=min(total, max(used, least)))

    def take(self, pps: float, *, stands_in: bool = False, guest: bool = False) -> Share:
        """A part for a newcomer. Raises NoCapacity when less than that is free.

        One that stands in for a lane that failed gets what is free, and a quarter of its frames
        at least: its viewers have nothing else.
        A guest counts for nobody who borrows, so that no stream gets less because of it.
        """
        free_pps = self.total_pps - self.used_pps
        fits = pps <= free_pps + TOLERANCE * SLOT_PPS if self._shares else self.total_pps > 0
        if not fits and stands_in and self.total_pps > 0:
            pps = min(pps, max(free_pps, LEAST_OF_STAND_IN * pps))
        elif not fits:
            raise NoCapacity(
                "too little is free for another stream",
                found=f"{max(0.0, free_pps) / SLOT_PPS:.2f} of {self.slots.total} slots free",
                expected=f"{pps / SLOT_PPS:.2f} slots",
            )
        share = Share(self, pps, guest=guest)
        self._shares.add(share)
        return share

    def _lendable_to(self, share: Share) -> float:
        """What nobody else has or may claim back; a stream that is alone has no bound."""
        others = {s for s in self._shares - {share} if share.guest or not s.guest}
        if not others:
            return float("inf")
        taken_pps = share.own_pps + sum(other.granted_pps for other in others)
        return max(0.0, self.total_pps - taken_pps)

    def _release(self, share: Share) -> None:
        self._shares.discard(share)


class Share:
    """One stream's part of a backend; leaves frames out evenly where the stream wants more.

    What it was admitted with stays its own, also after a pause. More than that it borrows of
    what is free, until others claim it.
    """

    def __init__(self, capacity: Capacity, pps: float, *, guest: bool = False) -> None:
        self.guest = guest
        self._capacity = capacity
        self._admitted_pps = pps
        self.own_pps = pps
        self._borrowed_pps = 0.0
        self._kept = 1.0  # of the frames
        self._credit = 0.0

    @property
    def granted_pps(self) -> float:
        return self.own_pps + self._borrowed_pps

    def ask(self, pps: float) -> None:
        """What the stream needs now: it gets that, or less where too little is free."""
        self.own_pps = min(pps, self._admitted_pps)
        self._borrowed_pps = min(pps - self.own_pps, self._capacity._lendable_to(self))
        kept = self.granted_pps / pps if pps > 0 else 1.0
        self._kept = 1.0 if kept > 1.0 - TOLERANCE else kept

    def admit(self) -> bool:
        """Whether the next frame is within the share; call it once for each."""
        self._credit += self._kept
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True

    def release(self) -> None:
        self._capacity._release(self)
