"""Lanes that give way: what is only looked at never costs a stream its own picture."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from streamlift.errors import NoCapacity
from streamlift.frames import BackendInfo, LaneOptions, Size, Slots
from streamlift.routing.ports import Backend, Lane

__all__ = ["Claim", "Guest", "Guests", "Restraint"]

HALT_S = 1.0
"""How long guests take no frames after a stream's own lane lost one; a ladder that steps down does
so after half a second of losses."""
LEAST_KEPT = 0.125
RISE_PER_S = 0.1


class Guest(Protocol):
    """Whoever holds a place on a backend only as long as nobody else needs it."""

    @property
    def backend(self) -> str: ...

    @property
    def holds(self) -> bool:
        """Whether it has a place there now, or is about to."""
        ...

    async def give_way(self, reason: str) -> None:
        """End, and return when the place is free."""
        ...


class Restraint:
    """Which part of the frames guests take; pure, the caller brings the time.

    None for a second after a stream's own lane lost a frame, then half of what they took before,
    an eighth at least, and from there a tenth more each second.
    """

    def __init__(self) -> None:
        self._kept = 1.0  # at the end of the halt
        self._halted_until_s = float("-inf")

    def strained(self, now_s: float) -> None:
        """A stream's own lane lost a frame."""
        if now_s >= self._halted_until_s:
            self._kept = max(LEAST_KEPT, self.kept(now_s) / 2)
        self._halted_until_s = now_s + HALT_S

    def kept(self, now_s: float) -> float:
        """Of the frames that come, 0 to 1."""
        if now_s < self._halted_until_s:
            return 0.0
        return min(1.0, self._kept + RISE_PER_S * (now_s - self._halted_until_s))


class Guests:
    """All guests of a service, and how much they may take now."""

    def __init__(self) -> None:
        self.restraint = Restraint()
        self._present: list[Guest] = []  # oldest first

    def add(self, guest: Guest) -> None:
        self._present.append(guest)

    def remove(self, guest: Guest) -> None:
        if guest in self._present:
            self._present.remove(guest)

    def on(self, backend: str) -> int:
        """How many hold a place there."""
        return sum(guest.backend == backend and guest.holds for guest in self._present)

    def apart(self, info: BackendInfo) -> BackendInfo:
        """The backend as a stream's own lane finds it: what guests hold is as good as free."""
        held = self.on(info.name)
        if not held:
            return info
        used = max(0, info.slots.used - held)
        return dataclasses.replace(info, slots=Slots(info.slots.total, used))

    async def make_room(self, backend: str, reason: str) -> bool:
        """Have the guest that came last leave; False if there is none."""
        for guest in reversed(self._present):
            if guest.backend == backend and guest.holds:
                self._present.remove(guest)
                await guest.give_way(reason)
                return True
        return False


class Claim:
    """A backend as a stream's own lanes open it: guests leave where it is full."""

    def __init__(self, name: str, backend: Backend, guests: Guests) -> None:
        self._name = name
        self._backend = backend
        self._guests = guests

    async def open_lane(self, size: Size, options: LaneOptions) -> Lane:
        """As `Backend.open_lane`."""
        reason = f"its place on {self._name} is needed by stream {options.stream}"
        if options.stands_in:  # it would be let in, with less than it needs
            while not self._backend.info().has_room:
                if not await self._guests.make_room(self._name, reason):
                    break
        while True:
            try:
                return await self._backend.open_lane(size, options)
            except NoCapacity:
                if not await self._guests.make_room(self._name, reason):
                    raise

    def lane_hung(self, lane: Lane) -> None:
        """As `Backend.lane_hung`."""
        self._backend.lane_hung(lane)
