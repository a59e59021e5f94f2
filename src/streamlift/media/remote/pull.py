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

from streamlift.clock import VIDEO_CLOCK_HZ, Clock
from streamlift.codec.motion import bridged
from streamlift.config import IceConfig
from streamlift.errors import ConfigError, StreamliftError
from streamlift.frames import Codec, CodedAudio, Frame, IngestCounts
from streamlift.mailbox import Mailbox
from streamlift.media.incoming.liveness import Liveness, attend
from streamlift.media.incoming.video_in import VideoReceiver
from streamlift.media.remote.backoff import LONGEST_WAIT_S, Retries
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.formats import sets_by_format
from streamlift.media.rtc.packet import MediaPacket
from streamlift.media.rtc.receiver import ReceiverTap
from streamlift.media.rtc.sdp import video_formats

__all__ = [
    "PullPublisher",
    "PullState",
    "PullStatus",
    "Pulled",
    "Source",
    "SourceAway",
    "SourceBusy",
    "SourceLost",
    "SourceRefused",
]

logger = logging.getLogger(__name__)

MAX_JUMP_S = 1.0
NO_PICTURE_S = 5.0
_QUEUED = 32

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
    """The source will not have us; asking again is of no use."""


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

    def open(self) -> AbstractAsyncContextManager[Pulled]:
        """One connection, media flowing. Raises SourceBusy, SourceRefused or StreamliftError."""
        ...


class Pulled:
    """One WebRTC connection that receives; the source does the signalling."""

    def __init__(
        self,
        name: str,
        ice: IceConfig,
        *,
        codecs: tuple[Codec, ...],
        audio: bool,
        max_side: int,
        clock: Clock,
    ) -> None:
        self.peer = Peer(ice)
        transceiver = self.peer.add("video", "recvonly")
        self.peer.prefer(transceiver, codecs)
        self.video = VideoReceiver(name, transceiver.receiver, max_side=max_side, clock=clock)
        if audio:
            ReceiverTap(self.peer.add("audio", "recvonly").receiver, _drain)

    async def accept(self, answer: str) -> None:
        """Take the answer. Raises MalformedSdp when it cannot be read."""
        self.video.sets.told = sets_by_format(video_formats(answer))
        await self.peer.accept(answer)

    async def aclose(self) -> None:
        self.video.end()
        await self.peer.close()


class PullPublisher:
    """Fits `routing.ports.Publisher`; `run()` belongs in a task beside the stream."""

    def __init__(
        self, stream: str, source: Source, *, clock: Clock, sleep: Sleep = asyncio.sleep
    ) -> None:
        self.stream = stream
        self.source = source
        self.seated = asyncio.Event()
        """Set when the stream has begun to take frames."""
        self._clock = clock
        self._sleep = sleep
        self._retries = Retries()
        self._state, self._reason = PullState.CONNECTING, ""
        self._connections = 0
        self._line = _Line()
        self._liveness = Liveness(NO_PICTURE_S)
        self._current: Pulled | None = None
        self._past = IngestCounts()
        self._frames: Mailbox[Frame] = Mailbox(_QUEUED, bridge=bridged)
        self._ended = asyncio.Event()

    # ---- routing.ports.Publisher ----

    @property
    def audio(self) -> AsyncIterator[CodedAudio] | None:
        return None

    @property
    def counts(self) -> IngestCounts:
        counts = self._past
        if self._current is not None:
            counts = _sum(counts, self._current.video.counts)
        stale = self._frames.dropped
        return _sum(counts, IngestCounts(dropped={"stale": stale} if stale else {}))

    @property
    def absence(self) -> str | None:
        """Why there are no pictures; None while the source is connected and answers."""
        if self._current is None or self._state is not PullState.LIVE:
            return self.status.reason or "the source is not connected"
        return self._liveness.absence(self._current.video.undecoded_since_s, self._clock.now_s())

    def __aiter__(self) -> AsyncIterator[Frame]:
        self.seated.set()
        return self._frames

    def request_keyframe(self) -> None:
        if self._current is not None:
            self._current.video.request_keyframe()

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
        """Pull until `aclose`, or until the source refuses for good."""
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
        async with self.source.open() as pulled:
            self._connections += 1
            self._current = pulled
            self._line.restart()
            self._liveness = Liveness(NO_PICTURE_S)
            try:
                async with asyncio.TaskGroup() as tasks:
                    helpers = (
                        tasks.create_task(pulled.video.run_feedback()),
                        tasks.create_task(_end_with(pulled)),
                        tasks.create_task(
                            attend(self._liveness, pulled.peer, pulled.video, self._clock)
                        ),
                    )
                    reason = await self._relay(pulled.video)
                    for helper in helpers:
                        helper.cancel()
            finally:
                self._current = None
                self._past = _sum(self._past, pulled.video.counts)
        raise SourceLost(reason)

    async def _relay(self, video: VideoReceiver) -> str:
        """Pass pictures on until there are none any more; returns why."""
        limit_s = self.source.first_frame_s
        frames = aiter(video)
        while True:
            try:
                async with asyncio.timeout(limit_s):
                    frame = await anext(frames)
            except StopAsyncIteration:
                return "the source ended the connection"
            except TimeoutError:
                return f"no picture for {limit_s:g} s"
            limit_s = self.source.stall_s
            if self._state is not PullState.LIVE:
                self._retries.worked()
                self._set(PullState.LIVE, "")
            self._frames.put(replace(frame, pts=self._line.place(frame.pts, frame.arrived_s)))

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


class _Line:
    """One rising line of pts over all connections; a jump of over a second is a new beginning."""

    def __init__(self) -> None:
        self.jumps = 0
        self._offset: int | None = None
        self._last: int | None = None
        self._arrived_s = 0.0

    def restart(self) -> None:
        """The next frame comes from another clock."""
        self._offset = None

    def place(self, pts: int, arrived_s: float) -> int:
        """pts at 90 kHz; always greater than the one before."""
        if self._offset is None:
            self._offset = self._now(arrived_s) - pts
        elif self._last is not None:
            step_s = (pts + self._offset - self._last) / VIDEO_CLOCK_HZ
            if step_s <= 0 or step_s - (arrived_s - self._arrived_s) > MAX_JUMP_S:
                self.jumps += 1
                self._offset = self._now(arrived_s) - pts
        self._last, self._arrived_s = pts + self._offset, arrived_s
        return self._last

    def _now(self, arrived_s: float) -> int:
        if self._last is None:
            return 0
        return self._last + max(1, round((arrived_s - self._arrived_s) * VIDEO_CLOCK_HZ))


async def _end_with(pulled: Pulled) -> None:
    await pulled.peer.wait_gone()
    pulled.video.end()


def _sum(one: IngestCounts, other: IngestCounts) -> IngestCounts:
    dropped = Counter(one.dropped)
    dropped.update(other.dropped)
    return IngestCounts(one.received + other.received, one.decoded + other.decoded, dict(dropped))


def _drain(packet: MediaPacket) -> None:
    """Audio is read, so that nothing piles up, but not used."""
