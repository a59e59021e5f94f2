"""A stream on its way to somewhere else: tried, and tried again, until it or its stream ends."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import ClassVar, Literal, Protocol, TypeGuard

from streamlift.clock import Clock
from streamlift.errors import StreamError, StreamliftError
from streamlift.media.outgoing.media_out import Frames
from streamlift.media.remote.backoff import Retry
from streamlift.media.rtc.audio import AudioFeed
from streamlift.metrics import Metrics

__all__ = [
    "Ended",
    "Listen",
    "Pictures",
    "Push",
    "PushKind",
    "PushLater",
    "PushRefused",
    "PushState",
    "Watch",
]

logger = logging.getLogger(__name__)

STEADY_S = 10.0
"""A connection that held this long was a good one: after it, waits begin anew."""
_SHORTEST = 3
"""Characters of a secret: of fewer nobody makes one, and words would be full of them."""
_MOST_WORDS = 300
"""Characters of a reason, part of which may be the other side's."""


class PushState(StrEnum):
    """waiting: it will be tried again. refused: it will not, see the reason."""

    CONNECTING = "connecting"
    LIVE = "live"
    WAITING = "waiting"
    REFUSED = "refused"
    CLOSED = "closed"


class PushRefused(StreamliftError):
    """The other side will not have us; asking again is of no use."""


class PushLater(StreamliftError):
    """The other side asks to come back after `retry_s`."""

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class Ended(StrEnum):
    """Why a connection that was good is over."""

    STREAM = "stream ended"
    THERE = "the server ended the session"
    SIZE = "the picture's size has changed"


class Pictures(Frames, Protocol):
    """A push's place in its stream; a `routing.Cursor` fits."""

    @property
    def skipped(self) -> int:
        """Frames jumped over because they were not taken in time."""
        ...


PushKind = Literal["whip", "rtmp", "rtsp", "v4l2"]

Watch = Callable[[], AbstractContextManager[Pictures]]
Listen = Callable[[], AbstractContextManager[AudioFeed]]


class Push(ABC):
    """One stream on its way to one address. `run` until it is cancelled or the stream ends.

    Frames are passed on as they are, never encoded again.
    """

    kind: ClassVar[PushKind]

    def __init__(
        self,
        stream: str,
        address: tuple[str, str | None],
        *,
        clock: Clock,
        metrics: Metrics,
        secrets: Sequence[str | None] = (),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`address`: what it was made of, to tell whether two are the same. `secrets` appear in
        no reason, whoever words it."""
        self.stream = stream
        self.address = address
        self.state = PushState.CONNECTING
        self.reason = ""
        self.connections = 0
        """How often media has begun to flow."""
        self._clock = clock
        self._metrics = metrics
        self._sleep = sleep
        self._secrets = sorted(
            {s for s in secrets if s and len(s) >= _SHORTEST}, key=len, reverse=True
        )
        self._frames: Pictures | None = None
        self._skipped_before = 0

    @property
    @abstractmethod
    def shown_url(self) -> str:
        """The address without what may be secret."""

    @property
    def bytes_sent(self) -> int:
        """Of media, of all connections; 0 where nothing is sent anywhere."""
        return 0

    @property
    def frames_skipped(self) -> int:
        """Pictures that the other side did not take in time, of all connections."""
        return self._skipped_before + (self._frames.skipped if self._frames else 0)

    async def run(self, watch: Watch, listen: Listen, has_sound: Callable[[], bool]) -> None:
        """Connect, and connect again when that ends; returns when the stream has ended.

        Raises PushRefused when the other side will not have us.
        """
        retry = Retry()
        reason = ""
        try:
            while True:
                asked_s = None
                started_s = self._clock.now_s()
                self._be(PushState.CONNECTING, reason)
                try:
                    ended = await self._once(watch, listen, has_sound())
                    if ended is Ended.STREAM:
                        self._be(PushState.CLOSED, ended)
                        return
                    reason = str(ended)
                    if ended is Ended.SIZE:
                        continue  # it is the picture that has changed, not the other side
                except PushRefused as error:
                    self._be(PushState.REFUSED, str(error))
                    raise PushRefused(self.reason) from None
                except PushLater as error:
                    asked_s, reason = error.retry_s, str(error)
                except StreamError as error:
                    self._be(PushState.CLOSED, str(error))
                    return
                except StreamliftError as error:
                    reason = str(error)
                except Exception:
                    # Broad on purpose: whatever one connection may raise, the next may do better.
                    logger.exception("stream %s: output failed", self.stream)
                    reason = "an error in this service; its log has the details"
                finally:
                    self._leave()
                if self._clock.now_s() - started_s >= STEADY_S:
                    retry.reset()
                wait_s = retry.wait_s(asked_s)
                self._be(PushState.WAITING, f"{reason}; next try in {wait_s:.0f} s")
                self._metrics.count("outputs_retries_total", type=self.kind)
                await self._sleep(wait_s)
                reason = ""
        finally:
            if self.state not in (PushState.REFUSED, PushState.CLOSED):
                self._be(PushState.CLOSED, "ended by request")

    @abstractmethod
    async def _once(self, watch: Watch, listen: Listen, with_sound: bool) -> Ended:
        """One connection, from before its beginning to its end."""

    def _take(self, frames: Pictures) -> None:
        """These are what goes out now; until the connection ends."""
        self._frames = frames

    def _leave(self) -> None:
        self._skipped_before, self._frames = self.frames_skipped, None

    def _request_keyframe(self) -> None:
        if self._frames is not None:  # else the first picture is yet to come, and is a keyframe
            self._frames.request_keyframe()

    def _live(self) -> None:
        self.connections += 1
        self._be(PushState.LIVE, "")

    def _be(self, state: PushState, reason: str) -> None:
        reason = self._harmless(reason)
        if (state, reason) != (self.state, self.reason):
            logger.info("stream %s: output %s: %s", self.stream, state, reason)
        self.state, self.reason = state, reason

    def _harmless(self, words: str) -> str:
        """One line of what can be printed, without a secret that the other side repeats."""
        for secret in self._secrets:
            words = words.replace(secret, "...")
        return "".join(c if c.isprintable() else " " for c in words)[:_MOST_WORDS]


def _may_be_found(secret: str | None) -> TypeGuard[str]:
    return secret is not None and len(secret) >= _SHORTEST
