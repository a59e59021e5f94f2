"""The table of backends: what can be used now, and what streams fall back to."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from streamlift.clock import Clock
from streamlift.errors import NoCapacity, NotReady, UnknownBackend
from streamlift.frames import BackendInfo, BackendState
from streamlift.routing.budgets import BackendFaults, fault_kind, info_within
from streamlift.routing.guests import Claim, Guests
from streamlift.routing.ports import Backend

__all__ = ["FALLBACK", "BackendTable"]

FALLBACK = "bicubic"


class BackendTable:
    """Backends by name, each with its faults; they may come and go while streams run.

    `fallback` names the one that streams fall back to, if one of that name is there. A backend
    that is removed takes no new lanes; its open ones go on until their streams have left, and
    whoever removes it closes it after that. Where a `stream` may be named, the answer is as that
    stream sees it, who may have to keep away from a backend that is good for others.
    """

    def __init__(
        self, backends: Iterable[Backend], *, clock: Clock, fallback: str = FALLBACK
    ) -> None:
        self._clock = clock
        self._fallback = fallback
        self._backends: dict[str, Backend] = {}
        self._faults: dict[str, BackendFaults] = {}
        self._told: dict[str, BackendState] = {}
        self.guests = Guests()
        """Comparisons: they leave a full backend when a stream's own lane is to be opened there."""
        for backend in backends:
            self.add(backend)

    def __contains__(self, name: str) -> bool:
        return name in self._backends

    def __getitem__(self, name: str) -> Backend:
        """Raises UnknownBackend."""
        try:
            return self._backends[name]
        except KeyError:
            raise UnknownBackend(
                f"no backend named {name!r}", found=name, expected=sorted(self._backends)
            ) from None

    @property
    def fallback(self) -> str | None:
        """The backend that is opened when another one fails, if there is one."""
        return self._fallback if self._fallback in self._backends else None

    def add(self, backend: Backend) -> None:
        """Take a backend in, in the place of one of the same name; it starts without faults."""
        name = backend.info().name
        self._backends[name] = backend
        self._faults[name] = BackendFaults()

    def remove(self, name: str) -> Backend:
        """Let no new lane be opened on it; returns it. Raises UnknownBackend."""
        backend = self[name]
        del self._backends[name], self._faults[name]
        self._told.pop(name, None)
        return backend

    def infos(self, stream: str = "") -> tuple[BackendInfo, ...]:
        """All backends as they are now; one that failed repeatedly is `quarantined`."""
        return tuple(self.info(name, stream) for name in self._backends)

    def as_free(self, stream: str = "") -> tuple[BackendInfo, ...]:
        """The same as a stream's own lane finds them: what guests hold counts as free."""
        return tuple(self.guests.apart(info) for info in self.infos(stream))

    def claim(self, name: str) -> Claim:
        """A backend for a stream's own lane: guests leave where it is full.

        Raises UnknownBackend.
        """
        return Claim(name, self[name], self.guests)

    def info(self, name: str, stream: str = "") -> BackendInfo:
        """One backend as it is now. Raises UnknownBackend."""
        info, now_s = self[name].info(), self._clock.now_s()
        return info_within(info, self._faults[name].budget_for(stream, now_s), now_s)

    def faults(self, name: str) -> BackendFaults:
        """The faults of a backend; those of one that has been removed count for nothing."""
        return self._faults.get(name) or BackendFaults()

    def charge(self, name: str, stream: str, reason: str) -> bool:
        """A lane of this stream failed; True if the backend ought to be probed now."""
        faults = self.faults(name)
        faults.fault(self._clock.now_s(), reason, stream)
        return faults.suspect

    async def probe(self, name: str) -> None:
        """Let a backend that one stream suspects show whether it is to blame; quarantine if so."""
        faults, reason = self.faults(name), ""
        faults.suspect = False  # once is enough
        try:
            await self[name].probe()
        except Exception as error:  # noqa: BLE001 - whatever a model may raise is the answer
            kind = fault_kind(error)
            reason = f"{kind}: {error or kind}" if kind.counts else ""
        faults.probed(self._clock.now_s(), reason)

    def usable(self, name: str, stream: str = "") -> bool:
        """Whether a lane may be opened on it: it is there, ready, and no fault is too recent."""
        if name not in self._backends:
            return False
        ready = self._backends[name].info().state is BackendState.READY
        return ready and self._faults[name].may_try(self._clock.now_s(), stream)

    def why_not(self, name: str, stream: str = "") -> str:
        """Why a backend is not usable, for a person to read."""
        if name not in self._backends:
            return f"{name} was removed"
        info = self.info(name, stream)
        return f"{name} is {info.state}: {info.reason or 'failed just now'}"

    def must_be_free(self, name: str, stream: str = "") -> None:
        """Raises UnknownBackend, NotReady or NoCapacity when no lane could be opened now."""
        info = self.info(name, stream)
        if info.state is not BackendState.READY:
            raise NotReady(f"backend {name} is {info.state}: {info.reason}", found=info.state)
        if not self.guests.apart(info).has_room:
            raise NoCapacity(
                f"all {info.slots.total} slots of backend {name} are taken; retry later or choose "
                "another backend",
                found=info.slots.used,
                expected=info.slots.total,
            )

    def watch(self, tell: Callable[[BackendState, BackendInfo], None]) -> None:
        """Tell of each change of state since the last call: the state before, and how it is now.

        Backends have no way of telling themselves; call it every half second or so.
        """
        for info in self.infos():
            before = self._told.get(info.name)
            self._told[info.name] = info.state
            if before is not None and before is not info.state:
                tell(before, info)
