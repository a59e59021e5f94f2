"""Publishers and viewers: the table of their sessions, and their lives."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from streamlift.clock import Clock
from streamlift.errors import Overloaded, StreamliftError, UnknownSession
from streamlift.frames import Codec
from streamlift.media.incoming.whip_publisher import WhipPublisher
from streamlift.media.outgoing.whep_viewer import Watch, WhepViewer
from streamlift.media.rtc.sdp import Role
from streamlift.service.parts import Parts

__all__ = [
    "MAX_PENDING",
    "PeerSession",
    "Role",
    "Session",
    "Sessions",
    "run_publisher",
    "run_viewer",
]

MAX_PENDING = 64
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
    ice_ufrag: str = ""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(_ID_BYTES))
    etag: str = field(default_factory=lambda: f'"{secrets.token_urlsafe(_ETAG_BYTES)}"')
    """Strong entity tag of the ICE session (RFC 9725 section 4.3)."""
    _sampled: tuple[float, int] | None = None
    _bitrate_bps: int = 0

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

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._answering = 0

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def pending(self) -> int:
        connecting = sum(s.peer.state == "connecting" for s in self._sessions.values())
        return connecting + self._answering

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Around the making of an answer. Raises Overloaded when too many handshakes pend."""
        if self.pending >= MAX_PENDING:
            raise Overloaded(
                "too many handshakes are pending; retry later",
                found=self.pending,
                expected=f"fewer than {MAX_PENDING}",
            )
        self._answering += 1
        try:
            yield
        finally:
            self._answering -= 1

    def open(self, role: Role, stream: str, peer: PeerSession, ice_ufrag: str = "") -> Session:
        """Name a session; `ice_ufrag` is the one of the peer's offer."""
        session = Session(role, stream, peer, self._clock.now_s(), ice_ufrag)
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


async def run_publisher(
    parts: Parts, sessions: Sessions, session: Session, publisher: WhipPublisher
) -> None:
    """The life of a publisher: its connection beside its place in the stream."""
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publisher.run())
            # Only a publisher that really sends takes a stream over.
            if await publisher.wait_live():
                with _relaying(parts, session.stream, publisher, tasks):
                    try:
                        await parts.router.publish(session.stream, publisher)
                    except StreamliftError as error:
                        await publisher.aclose(str(error))
                    else:
                        await publisher.aclose("stream ended")
    finally:
        sessions.remove(session)


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
