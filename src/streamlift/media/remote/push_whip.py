"""Publishing a stream to another server by WHIP (RFC 9725), for audiences larger than ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from streamlift.clock import Clock
from streamlift.config import IceConfig
from streamlift.errors import MediaError, Overloaded, StreamliftError
from streamlift.frames import Codec
from streamlift.media.outgoing.media_out import OutgoingMedia
from streamlift.media.outgoing.packetizer import Packetizer
from streamlift.media.remote.fetch import Fetcher, Reply
from streamlift.media.remote.push import Ended, Listen, Push, PushLater, PushRefused, Watch
from streamlift.media.remote.url_safety import same_origin
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.sender import SenderTap
from streamlift.metrics import Metrics
from streamlift.tasks import to_its_end

__all__ = ["WhipPush"]

_SDP = "application/sdp"
_SECRET_LENGTH = 24
"""Characters: no name that people give is as long, and no secret much shorter."""
_FINAL = {
    400: "it does not understand the offer",
    401: "it wants another token",
    403: "this token does not allow it",
    405: "it does not take offers there; is this a WHIP address?",
    415: "it does not take SDP there; is this a WHIP address?",
    422: "it cannot serve this video",
}


class WhipPush(Push):
    """Keyframe requests of the server come back to the stream."""

    kind = "whip"

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
        super().__init__(
            stream, (url, token), clock=clock, metrics=metrics, secrets=(token,), sleep=sleep
        )
        self.url = url
        self._token = token
        self._ice = ice
        self._fetcher = fetcher
        self._packetizer = packetizer
        self._tap: SenderTap | None = None
        self._sent_before = 0

    @property
    def shown_url(self) -> str:
        """The address without its query, and without parts that can only be a secret: there are
        servers that have one in the path."""
        parts = self.url.partition("?")[0].split("/")
        host = parts[:3]
        return "/".join([*host, *("..." if len(p) >= _SECRET_LENGTH else p for p in parts[3:])])

    @property
    def bytes_sent(self) -> int:
        """Payload bytes of all connections."""
        return self._sent_before + (self._tap.octets_sent if self._tap else 0)

    async def _once(self, watch: Watch, listen: Listen, with_sound: bool) -> Ended:
        stream_ended = asyncio.Event()

        async def note_end() -> None:
            stream_ended.set()

        media = OutgoingMedia(
            self._packetizer, clock=self._clock, metrics=self._metrics, on_end=note_end
        )
        async with self._session(media, with_sound) as peer:
            with watch() as frames, listen() as sound:
                self._take(frames)
                media.begin(frames, sound)
                self._live()
                await _first_of(peer.wait_gone(), stream_ended.wait())
        return Ended.STREAM if stream_ended.is_set() else Ended.THERE

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
                self._sent_before, self._tap = self.bytes_sent, None
                self._leave()
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
            raise PushLater(problem, retry_s)
        if reply.status in (429, 503):
            raise Overloaded(problem)
        raise MediaError(problem, found=reply.status, expected=201)


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
