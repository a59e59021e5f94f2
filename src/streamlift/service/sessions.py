"""Publishers and viewers: the table of their sessions, and their lives."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from streamlift.clock import Clock
from streamlift.config import LimitsConfig
from streamlift.errors import Overloaded, StreamliftError, TooMany, UnknownSession
from streamlift.frames import Codec
from streamlift.media.incoming.whip_publisher import WhipPublisher
from streamlift.media.outgoing.whep_viewer import Watch, WhepViewer
from streamlift.media.rtc.sdp import Role
from streamlift.service.callers import Caller
from streamlift.service.grants import Grant
from streamlift.service.parts import Parts

__all__ = [
    "PeerSession",
    "Role",
    "Session",
    "Sessions",
    "run_publisher",
    "run_viewer",
]

_ID_BYTES = 24
"""192 random bits; RFC 9725 asks for at least 122."""
_ETAG_BYTES = 9


class PeerSession(Protocol):
    """What publisher and viewer sessions have in common."""

    @property
    def codec(self) -> Codec | None: ...

    @property
    def state(self) -> str: ...

    @property
    def rtp_origin(self) -> int | None: ...

    @property
    def media_bytes(self) -> int:
        """Payload bytes received or sent so far."""
        ...

    async def packets_lost(self) -> int: ...

    async def add_candidates(self, candidates: Sequence[str]) -> None:
        """Take candidates that the peer found after its offer."""
        ...

    async def aclose(self, reason: str) -> None: ...


@dataclass(slots=True, eq=False)
class Session:
    """One peer's connection and what the API tells of it."""

    role: Role
    stream: str
    peer: PeerSession
    created_s: float
    caller: Caller
    ice_ufrag: str = ""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(_ID_BYTES))
    etag: str = field(default_factory=lambda: f'"{secrets.token_urlsafe(_ETAG_BYTES)}"')
    """Strong entity tag of the ICE session (RFC 9725 section 4.3)."""
    also: Grant | None = None
    """What it needs beside the caller's, if another token gave it."""
    _sampled: tuple[float, int] | None = None
    _bitrate_bps: int = 0

    @property
    def grants(self) -> tuple[Grant, ...]:
        """What it lives by: it ends with any of them."""
        return (self.caller.grant,) if self.also is None else (self.caller.grant, self.also)

    def bitrate_bps(self, now_s: float) -> int:
        """Payload bits a second since this was asked last, at least a second ago."""
        since_s, before = self._sampled or (self.created_s, 0)
        if now_s - since_s >= 1.0:
            sent = self.peer.media_bytes
            self._bitrate_bps = int((sent - before) * 8 / (now_s - since_s))
            self._sampled = (now_s, sent)
        return self._bitrate_bps


class Sessions:
    """Sessions by id; a handshake counts as pending until its peer is live or gone."""

    def __init__(self, clock: Clock, limits: LimitsConfig) -> None:
        self._clock = clock
        self._limits = limits
        self._sessions: dict[str, Session] = {}
        self._answering: list[Caller] = []

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def pending(self) -> int:
        """Handshakes that are not finished."""
        return len(self._pending())

    @contextmanager
    def answering(self, role: Role, stream: str, caller: Caller) -> Iterator[None]:
        """Around the making of an answer. Raises TooMany when this caller has as much as one may
        have, Overloaded when the service has."""
        self._check(role, stream, caller)
        self._answering.append(caller)
        try:
            yield
        finally:
            self._answering.remove(caller)

    def open(
        self,
        role: Role,
        stream: str,
        peer: PeerSession,
        caller: Caller,
        ice_ufrag: str = "",
    ) -> Session:
        """Name a session; `ice_ufrag` is the one of the peer's offer."""
        session = Session(role, stream, peer, self._clock.now_s(), caller, ice_ufrag)
        self._sessions[session.id] = session
        return session

    def get(self, session_id: str) -> Session:
        """Raises UnknownSession."""
        session = self._sessions.get(session_id)
        if session is None:
            raise UnknownSession("no such session; it may have ended", found=session_id[:64])
        return session

    def remove(self, session: Session) -> None:
        self._sessions.pop(session.id, None)

    def _pending(self) -> list[Caller]:
        connecting = [s.caller for s in self._sessions.values() if s.peer.state == "connecting"]
        return connecting + self._answering

    def _check(self, role: Role, stream: str, caller: Caller) -> None:
        limits, pending = self._limits, self._pending()
        of_address = sum(other.address == caller.address for other in pending)
        if of_address >= limits.handshakes_per_address:
            raise TooMany(
                "too many handshakes of this address are pending; retry later",
                found=of_address,
                expected=f"at most {limits.handshakes_per_address}",
            )
        if caller.grant.key:
            self._check_token(role, stream, caller.grant.key, pending)
        if len(pending) >= limits.handshakes:
            raise Overloaded(
                "too many handshakes are pending; retry later",
                found=len(pending),
                expected=f"fewer than {limits.handshakes}",
            )

    def _check_token(self, role: Role, stream: str, key: str, pending: list[Caller]) -> None:
        limits = self._limits
        of_token = sum(other.grant.key == key for other in pending)
        if of_token >= limits.handshakes_per_token:
            raise TooMany(
                "too many handshakes with this token are pending; retry later",
                found=of_token,
                expected=f"at most {limits.handshakes_per_token}",
            )
        theirs = [s for s in self._sessions.values() if s.caller.grant.key == key]
        if role is Role.PUBLISH:
            # A publisher that comes back replaces itself, though its last session lingers.
            found = len({s.stream for s in theirs if s.role is role} - {stream})
            most, what = limits.publishers_per_token, "publishers"
        else:
            found = sum(s.role is role for s in theirs)
            most, what = limits.viewers_per_token, "viewers"
        if found >= most:
            raise TooMany(
                f"this token has as many {what} as one may have; end one first",
                found=found,
                expected=f"at most {most}",
            )


async def run_publisher(
    parts: Parts, sessions: Sessions, session: Session, publisher: WhipPublisher
) -> None:
    """The life of a publisher: its connection beside its place in the stream."""
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publisher.run())
            # A stream is taken over only by pictures that can be shown.
            takes_over = _has_publisher(parts, session.stream)
            if not await publisher.wait_live(shown=takes_over):
                return
            if not takes_over and _has_publisher(parts, session.stream):
                takes_over = True  # somebody else was sooner
                if not await publisher.wait_live(shown=True):
                    return
            if takes_over and publisher.absence is not None:
                await publisher.aclose(publisher.absence)
            else:
                with _relaying(parts, session.stream, publisher, tasks):
                    try:
                        await parts.router.publish(session.stream, publisher)
                    except StreamliftError as error:
                        await publisher.aclose(str(error))
                    else:
                        await publisher.aclose(_why_it_ended(parts, session.stream))
    finally:
        sessions.remove(session)


def _why_it_ended(parts: Parts, stream: str) -> str:
    """The stream has let its publisher go; it tells it so too, and one of the two is first."""
    return "taken_over" if _has_publisher(parts, stream) else "stream ended"


def _has_publisher(parts: Parts, stream: str) -> bool:
    try:
        return parts.router.stream(stream).publisher is not None
    except StreamliftError:
        return False


async def run_viewer(
    parts: Parts, sessions: Sessions, session: Session, viewer: WhepViewer, watch: Watch
) -> None:
    """The life of a viewer: its connection, and the stream's sound beside what `watch` opens."""
    try:
        with parts.listening(session.stream) as sound:
            await viewer.run(watch, sound)
    finally:
        sessions.remove(session)


@contextmanager
def _relaying(
    parts: Parts, stream: str, publisher: WhipPublisher, tasks: asyncio.TaskGroup
) -> Iterator[None]:
    """Pass the publisher's sound on, or drain it, until the block ends."""
    if publisher.audio is None:
        yield
        return
    with parts.audio.use(stream) as relay:
        relaying = tasks.create_task(relay.run(publisher.audio))
        try:
            yield
        finally:
            relaying.cancel()
