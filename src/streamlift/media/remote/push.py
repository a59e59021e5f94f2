"""Publishing a stream to another server by WHIP (RFC 9725), for audiences larger than ours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from enum import StrEnum

from streamlift.clock import Clock
from streamlift.config import IceConfig
from streamlift.errors import MediaError, Overloaded, StreamError, StreamliftError
from streamlift.frames import Codec
from streamlift.media.outgoing.media_out import Frames, OutgoingMedia
from streamlift.media.outgoing.packetizer import Packetizer
from streamlift.media.remote.backoff import Retry
from streamlift.media.remote.fetch import Fetcher, Reply
from streamlift.media.remote.url_safety import same_origin
from streamlift.media.rtc.audio import AudioFeed
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.sender import SenderTap
from streamlift.metrics import Metrics
from streamlift.tasks import to_its_end

__all__ = ["PushRefused", "PushState", "WhipPush"]

logger = logging.getLogger(__name__)

STEADY_S = 10.0
"""A connection that held this long was a good one: after it, waits begin anew."""
_SDP = "application/sdp"
_FINAL = {
    400: "it does not understand the offer",
    401: "it wants another token",
    403: "this token does not allow it",
    405: "it does not take offers there; is this a WHIP address?",
    415: "it does not take SDP there; is this a WHIP address?",
    422: "it cannot serve this video",
}


class PushState(StrEnum):
    """waiting: it will be tried again. refused: it will not, see the reason."""

    CONNECTING = "connecting"
    LIVE = "live"
    WAITING = "waiting"
    REFUSED = "refused"
    CLOSED = "closed"


class PushRefused(StreamliftError):
    """The server will not have us; asking again is of no use."""


class _Later(StreamliftError):
    """The server asks to come back after `retry_s`."""

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class WhipPush:
    """One stream on its way to one address. `run` until it is cancelled or the stream ends.

    Frames are passed on as they are, never encoded again; keyframe requests of the server come
    back to the stream.
    """

    def __init__(
        self,
        stream: str,
        url: str,
        token: str | None,
        *,
        ice: IceConfig,
        fetcher: Callable[[], Fetcher],
        packetizer: Packetizer,
        clock: Clock,
        metrics: Metrics,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.stream = stream
        self.url = url
        self.state = PushState.CONNECTING
        self.reason = ""
        self.connections = 0
        """How often media has begun to flow."""
        self._token = token
        self._ice = ice
        self._fetcher = fetcher
        self._packetizer = packetizer
        self._clock = clock
        self._metrics = metrics
        self._sleep = sleep
        self._tap: SenderTap | None = None
        self._frames: Frames | None = None
        self._sent_before = 0

    @property
    def shown_url(self) -> str:
        """The address without its query, which may hold a secret."""
        return self.url.partition("?")[0]

    @property
    def bytes_sent(self) -> int:
        """Payload bytes of all connections."""
        return self._sent_before + (self._tap.octets_sent if self._tap else 0)

    async def run(
        self,
        watch: Callable[[], AbstractContextManager[Frames]],
        listen: Callable[[], AbstractContextManager[AudioFeed]],
        has_sound: Callable[[], bool],
    ) -> None:
        """Connect, and connect again when that ends; returns when the stream has ended.

        Raises PushRefused when the server will not have us.
        """
        retry = Retry()
        try:
            while True:
                asked_s = None
                started_s = self._clock.now_s()
                self._be(PushState.CONNECTING, "")
                try:
                    if await self._once(watch, listen, has_sound()):
                        self._be(PushState.CLOSED, "stream ended")
                        return
                    reason = "the server ended the session"
                except PushRefused as error:
                    self._be(PushState.REFUSED, str(error))
                    raise
                except _Later as error:
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
                if self._clock.now_s() - started_s >= STEADY_S:
                    retry.reset()
                wait_s = retry.wait_s(asked_s)
                self._be(PushState.WAITING, f"{reason}; next try in {wait_s:.0f} s")
                self._metrics.count("outputs_retries_total", type="whip")
                await self._sleep(wait_s)
        finally:
            if self.state not in (PushState.REFUSED, PushState.CLOSED):
                self._be(PushState.CLOSED, "ended by request")

    async def _once(
        self,
        watch: Callable[[], AbstractContextManager[Frames]],
        listen: Callable[[], AbstractContextManager[AudioFeed]],
        with_sound: bool,
    ) -> bool:
        """One connection; True when the stream has ended, False when the server has."""
        stream_ended = asyncio.Event()

        async def note_end() -> None:
            stream_ended.set()

        media = OutgoingMedia(
            self._packetizer, clock=self._clock, metrics=self._metrics, on_end=note_end
        )
        async with self._session(media, with_sound) as peer:
            with watch() as frames, listen() as sound:
                self._frames = frames
                media.begin(frames, sound)
                self.connections += 1
                self._be(PushState.LIVE, "")
                await _first_of(peer.wait_gone(), stream_ended.wait())
        return stream_ended.is_set()

    @asynccontextmanager
    async def _session(self, media: OutgoingMedia, with_sound: bool) -> AsyncIterator[Peer]:
        """A connected peer; at the end it is closed and the session deleted at the server."""
        peer = Peer(self._ice)
        resource: str | None = None
        async with self._fetcher() as http:
            try:
                video = peer.add("video", "sendonly", media.video)
                peer.prefer(video, [Codec.H264])
                self._tap = SenderTap(video.sender, self._request_keyframe)
                if with_sound:
                    audio = peer.add("audio", "sendonly", media.audio)
                    peer.prefer_opus(audio)
                    SenderTap(audio.sender, _no_keyframe)
                reply = await self._post(http, await peer.offer())
                if location := reply.headers.get("location"):
                    resource = str(reply.url.join(location))
                await peer.accept(reply.text)
                await peer.connected()
                yield peer
            finally:
                self._sent_before, self._tap, self._frames = self.bytes_sent, None, None
                await to_its_end(self._finish(http, peer, resource))

    async def _finish(self, http: Fetcher, peer: Peer, resource: str | None) -> None:
        await peer.close()
        if resource is not None:
            # The token is for the server it was given for, wherever that says its session lies.
            token = self._token if same_origin(self.url, resource) else None
            with suppress(StreamliftError):  # the server ends the session without us
                await http.request("DELETE", resource, token=token)

    async def _post(self, http: Fetcher, offer: str) -> Reply:
        reply = await http.request(
            "POST", self.url, content=offer, content_type=_SDP, token=self._token
        )
        where = reply.url.host
        if reply.status in (200, 201) and reply.text.startswith("v=0"):
            return reply
        if reply.status in _FINAL:
            raise PushRefused(f"{where} answered {reply.status}: {_FINAL[reply.status]}")
        problem = f"{where} answered {reply.status}"
        retry_s = _seconds(reply.headers.get("retry-after"))
        if retry_s is not None:
            raise _Later(problem, retry_s)
        if reply.status in (429, 503):
            raise Overloaded(problem)
        raise MediaError(problem, found=reply.status, expected=201)

    def _request_keyframe(self) -> None:
        if self._frames is not None:  # else the first picture is yet to come, and is a keyframe
            self._frames.request_keyframe()

    def _be(self, state: PushState, reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            logger.info("stream %s: output %s: %s", self.stream, state, reason)
        self.state, self.reason = state, reason


async def _first_of(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _seconds(text: str | None) -> float | None:
    """Of a Retry-After that gives seconds; the form with a date is not used here in practice."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _no_keyframe() -> None:
    """Sound has none."""
