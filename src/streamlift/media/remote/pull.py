"""A publisher that fetches its pictures itself: it connects, and connects again, for ever."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from streamlift.clock import Clock
from streamlift.codec.motion import bridged
from streamlift.errors import ConfigError, StreamliftError
from streamlift.frames import CodedAudio, Frame, IngestCounts
from streamlift.mailbox import Mailbox
from streamlift.media.remote.backoff import LONGEST_WAIT_S, Retries
from streamlift.media.remote.line import Line
from streamlift.media.rtc.audio import AUDIO_CLOCK_HZ

__all__ = [
    "Pictures",
    "PullPublisher",
    "PullState",
    "PullStatus",
    "Source",
    "SourceAway",
    "SourceBusy",
    "SourceEnded",
    "SourceLost",
    "SourceRefused",
]

logger = logging.getLogger(__name__)

_QUEUED = 32
_SOUND_QUEUED = 256
"""Packets: 5 s of the usual 20 ms."""

Sleep = Callable[[float], Awaitable[None]]


class SourceBusy(StreamliftError):
    """The source has nothing to show, or no room, at the moment; ask again in `retry_s`."""

    def __init__(self, message: str, *, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class SourceAway(StreamliftError):
    """The server is not there; whether it is back is asked in `retry_s`, at little cost."""

    def __init__(self, message: str, *, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class SourceLost(StreamliftError):
    """A connection came about, but it gives no pictures (any more)."""


class SourceRefused(StreamliftError):
    """The source will not have us, or we will not have it; asking again is of no use."""


class SourceEnded(StreamliftError):
    """All there is was shown: the source was a file, and it is over."""


class PullState(StrEnum):
    """connecting: trying often. waiting: trying now and then. failed: given up, see the reason."""

    CONNECTING = "connecting"
    LIVE = "live"
    WAITING = "waiting"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class PullStatus:
    """What the API tells of a pull."""

    state: PullState
    reason: str
    connections: int
    jumps: int


class Pictures(Protocol):
    """One connection of a source: an async iterator of Frame that ends with it.

    It drains its source always. Iterating may raise a StreamliftError that says why it ended.
    """

    @property
    def counts(self) -> IngestCounts: ...

    @property
    def absence(self) -> str | None:
        """Why it must count as gone; None while it is there, and be it with nothing new."""
        ...

    @property
    def sound(self) -> AsyncIterator[CodedAudio] | None:
        """Its Opus packets, for one reader; None if it can have none."""
        ...

    def __aiter__(self) -> AsyncIterator[Frame]: ...

    def request_keyframe(self) -> None:
        """Ask the sender for a keyframe, if that can be; never waits, never raises."""
        ...

    async def attend(self) -> None:
        """What has to run beside it; ends with the connection."""
        ...


class Source(Protocol):
    """Something to pull from."""

    @property
    def kind(self) -> str: ...

    @property
    def doing(self) -> str:
        """What it waits for while it connects, "" if that is nothing worth telling."""
        ...

    @property
    def first_frame_s(self) -> float:
        """How long after connecting the first picture may take."""
        ...

    @property
    def stall_s(self) -> float:
        """How long a connection without pictures is kept."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What may be shown to anybody who may control the service: no secrets."""
        ...

    def open(self) -> AbstractAsyncContextManager[Pictures]:
        """One connection, media flowing. Raises SourceBusy, SourceRefused or StreamliftError."""
        ...


class PullPublisher:
    """Fits `routing.ports.Publisher`; `run()` belongs in a task beside the stream."""

    def __init__(
        self, stream: str, source: Source, *, clock: Clock, sleep: Sleep = asyncio.sleep
    ) -> None:
        self.stream = stream
        self.source = source
        self.seated = asyncio.Event()
        """Set when the stream has begun to take frames."""
        self.sound: Mailbox[CodedAudio] = Mailbox(_SOUND_QUEUED)
        """The Opus of all its connections; to be read by one reader, to its end."""
        self._clock = clock
        self._sleep = sleep
        self._retries = Retries()
        self._state, self._reason = PullState.CONNECTING, ""
        self._connections = 0
        self._line = Line()
        self._sound_line = Line(AUDIO_CLOCK_HZ)
        self._has_sound = False
        self._current: Pictures | None = None
        self._past = IngestCounts()
        self._frames: Mailbox[Frame] = Mailbox(_QUEUED, bridge=bridged)
        self._ended = asyncio.Event()

    # ---- routing.ports.Publisher ----

    @property
    def audio(self) -> AsyncIterator[CodedAudio] | None:
        """Its sound, once some has come."""
        return self.sound if self._has_sound else None

    @property
    def counts(self) -> IngestCounts:
        counts = self._past
        if self._current is not None:
            counts = _sum(counts, self._current.counts)
        stale = self._frames.dropped
        return _sum(counts, IngestCounts(dropped={"stale": stale} if stale else {}))

    @property
    def absence(self) -> str | None:
        """Why there are no pictures; None while the source is connected and answers."""
        if self._current is None or self._state is not PullState.LIVE:
            return self.status.reason or "the source is not connected"
        return self._current.absence

    def __aiter__(self) -> AsyncIterator[Frame]:
        self.seated.set()
        return self._frames

    def request_keyframe(self) -> None:
        if self._current is not None:
            self._current.request_keyframe()

    async def aclose(self, reason: str) -> None:
        if not self._ended.is_set():
            self._set(PullState.CLOSED, reason)
        self._end()

    def fail(self, reason: str) -> None:
        """The stream cannot take it; the reason stays to be read."""
        self._set(PullState.FAILED, reason)
        self._end()

    # ---- the pull ----

    @property
    def status(self) -> PullStatus:
        reason = self._reason
        if self._state is PullState.CONNECTING:
            reason = self.source.doing or reason
        return PullStatus(self._state, reason, self._connections, self._line.jumps)

    async def run(self) -> None:
        """Pull until `aclose`, or until the source refuses or ends for good."""
        try:
            async with asyncio.TaskGroup() as tasks:
                pulling = tasks.create_task(self._pull())
                await self._ended.wait()
                pulling.cancel()
        finally:
            self._end()

    async def _pull(self) -> None:
        while not self._ended.is_set():
            try:
                await self._connect_once()
            except (SourceRefused, ConfigError) as error:
                self._set(PullState.FAILED, str(error))
                self._end()
                return
            except SourceEnded as error:
                self._set(PullState.CLOSED, str(error))
                self._end()
                return
            except SourceAway as error:
                self._set(PullState.CONNECTING, str(error))
                await self._sleep(error.retry_s)
            except StreamliftError as error:
                busy_s = error.retry_s if isinstance(error, SourceBusy) else None
                patient, wait_s = self._retries.failed(busy_s, self._clock.now_s())
                self._set(PullState.CONNECTING if patient else PullState.WAITING, str(error))
                await self._sleep(wait_s)
            except Exception:
                # Broad on purpose: whatever one connection may raise, the next one may do better.
                logger.exception("stream %s: %s source failed", self.stream, self.source.kind)
                self._set(PullState.WAITING, "an error in this service; its log has the details")
                await self._sleep(LONGEST_WAIT_S)

    async def _connect_once(self) -> None:
        """One connection from start to end; always ends with an error that says why."""
        async with self.source.open() as pictures:
            self._connections += 1
            self._current = pictures
            self._line.restart()
            self._sound_line.restart()
            try:
                async with asyncio.TaskGroup() as tasks:
                    beside = [tasks.create_task(pictures.attend())]
                    if pictures.sound is not None:
                        beside.append(tasks.create_task(self._relay_sound(pictures.sound)))
                    why = await self._relay(pictures)
                    for task in beside:
                        task.cancel()
            finally:
                self._current = None
                self._past = _sum(self._past, pictures.counts)
        raise why

    async def _relay(self, pictures: Pictures) -> StreamliftError:
        """Pass pictures on until there are none any more; returns why."""
        limit_s = self.source.first_frame_s
        frames = aiter(pictures)
        while True:
            try:
                async with asyncio.timeout(limit_s):
                    frame = await anext(frames)
            except StopAsyncIteration:
                return SourceLost("the source ended the connection")
            except TimeoutError:
                return SourceLost(f"no picture for {limit_s:g} s")
            except StreamliftError as error:
                return error
            limit_s = self.source.stall_s
            if self._state is not PullState.LIVE:
                self._retries.worked()
                self._set(PullState.LIVE, "")
            self._frames.put(self._placed(frame))

    def _placed(self, frame: Frame) -> Frame:
        pts = self._line.place(frame.pts, frame.arrived_s)
        motion = frame.motion
        if motion is not None:
            motion = motion.placed(self._line.placed)
        return replace(frame, pts=pts, motion=motion)

    async def _relay_sound(self, packets: AsyncIterator[CodedAudio]) -> None:
        async for packet in packets:
            self._has_sound = True
            pts = self._sound_line.place(packet.pts, packet.arrived_s)
            self.sound.put(replace(packet, pts=pts))

    def _set(self, state: PullState, reason: str) -> None:
        if (state, reason) != (self._state, self._reason):
            level = logging.INFO if state in (PullState.LIVE, PullState.CLOSED) else logging.WARNING
            logger.log(
                level, "stream %s: %s source %s %s", self.stream, self.source.kind, state, reason
            )
        self._state, self._reason = state, reason

    def _end(self) -> None:
        self._ended.set()
        self._frames.end()
        self.sound.end()


def _sum(one: IngestCounts, other: IngestCounts) -> IngestCounts:
    dropped = Counter(one.dropped)
    dropped.update(other.dropped)
    return IngestCounts(one.received + other.received, one.decoded + other.decoded, dict(dropped))
