"""Our own WHIP publisher and WHEP viewer, as the command line and the demo use them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Protocol, runtime_checkable

from aiortc.mediastreams import MediaStreamError

from streamlift.clock import Clock
from streamlift.codec import H264Encoder
from streamlift.config import IceConfig
from streamlift.frames import Codec, EncodedFrame, Planes, Rendition, Size
from streamlift.mailbox import Mailbox
from streamlift.media.incoming.video_in import VideoReceiver
from streamlift.media.outgoing.whep_viewer import Packetized, Packetizer
from streamlift.media.remote.http import Signalling
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.sender import PayloadTrack, SenderTap
from streamlift.tasks import to_its_end

__all__ = ["CodedSource", "TimedPicture", "TimedUnit", "WhipClient", "watch_whep"]

logger = logging.getLogger(__name__)

VIEW_MAX_SIDE = 5120
_QUEUED = 64
_QUEUED_SOUND = 256
"""Packets: five seconds."""
_LAST_S, _LAST_LOOKS = 1.0, 50

KEYFRAME_EVERY_S = 2.0

TimedPicture = tuple[int, Planes]
"""pts at 90 kHz and the picture."""

TimedUnit = tuple[int, bytes, bool]
"""pts at 90 kHz, an access unit, and whether it is a keyframe."""


@runtime_checkable
class CodedSource(Protocol):
    """Gives access units at their time; asks before each whether a keyframe is wanted."""

    def units(self, keyframe_wanted: Callable[[], bool]) -> AsyncGenerator[TimedUnit]: ...


class WhipClient:
    """Publishes pictures, which it encodes as they come, or what is coded already.

    It answers keyframe requests, and sends a keyframe every two seconds, so that relays that cannot
    ask can join. Pictures may change their size. With `sound`, Opus may be sent beside them.
    """

    def __init__(
        self, size: Size, fps: float, bitrate_bps: int, *, clock: Clock, sound: bool = False
    ) -> None:
        self._size = size
        self._fps = fps
        self._clock = clock
        self._rendition = Rendition(Codec.H264, bitrate_bps, "Baseline")
        self._packetizer = Packetizer()
        self._ready: Mailbox[Packetized] = Mailbox(_QUEUED)
        self._sound: Mailbox[Packetized] | None = Mailbox(_QUEUED_SOUND) if sound else None
        self._keyframe_wanted = False
        self.sent = 0
        self.sound_sent = 0

    def put_sound(self, pts: int, opus: bytes) -> bool:
        """Send an Opus packet, pts at 48 kHz. False if it, or an older one, had to go."""
        return self._sound is not None and self._sound.put(Packetized(pts, (opus,)))

    async def run(
        self,
        url: str,
        token: str | None,
        pictures: AsyncIterator[TimedPicture] | CodedSource,
        *,
        on_live: Callable[[], None],
    ) -> str:
        """Publish until the pictures end or the server hangs up; returns why it ended.

        Raises what `Signalling.post` raises, MediaError when no connection came about, and
        whatever the pictures or their encoder raise.
        """
        peer = Peer(IceConfig())
        self._ready = Mailbox(_QUEUED)  # one to an attempt
        if self._sound is not None:
            self._sound = Mailbox(_QUEUED_SOUND)
        try:
            track = PayloadTrack("video", self._next)
            transceiver = peer.add("video", "sendonly", track)
            peer.prefer(transceiver, [Codec.H264])
            SenderTap(transceiver.sender, self._want_keyframe)
            if self._sound is not None:
                audio = peer.add("audio", "sendonly", PayloadTrack("audio", self._next_sound))
                peer.prefer_opus(audio)
                SenderTap(audio.sender, _no_keyframe)
            async with Signalling(url, token) as signalling:
                await peer.accept(await signalling.post(await peer.offer()))
                await peer.connected()
                on_live()
                return await self._send(peer, pictures)
        finally:
            self._ready.end()
            if self._sound is not None:
                self._sound.end()
            await peer.close()

    async def _send(self, peer: Peer, pictures: AsyncIterator[TimedPicture] | CodedSource) -> str:
        try:
            async with asyncio.TaskGroup() as tasks:
                gone = tasks.create_task(peer.wait_gone())
                feed = tasks.create_task(self._feed(pictures))
                await asyncio.wait((gone, feed), return_when=asyncio.FIRST_COMPLETED)
                if feed.done() and not feed.exception():
                    await self._sent_all()
                reason = "the source ended" if feed.done() else "the server ended the session"
                gone.cancel()
                feed.cancel()
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the one of `feed`: what the caller can act on
        return reason

    async def _sent_all(self) -> None:
        """The last pictures go out before the connection ends; they are few."""
        for _ in range(_LAST_LOOKS):
            if not len(self._ready):
                return
            await asyncio.sleep(_LAST_S / _LAST_LOOKS)

    async def _feed(self, pictures: AsyncIterator[TimedPicture] | CodedSource) -> None:
        units = (
            pictures.units(self._take_wish)
            if isinstance(pictures, CodedSource)
            else self._encoded(pictures)
        )
        async with aclosing(units):
            async for pts, data, keyframe in units:
                frame = EncodedFrame(
                    pts, self._size, self._rendition, keyframe, data, self._clock.now_s()
                )
                self._ready.put(self._packetizer.packetize(frame))

    async def _encoded(self, pictures: AsyncIterator[TimedPicture]) -> AsyncGenerator[TimedUnit]:
        encoder: H264Encoder | None = None
        last_key_pts: int | None = None
        try:
            async for pts, planes in pictures:
                if encoder is None or planes.size != self._size:
                    if encoder is not None:
                        encoder.close()
                    self._size = planes.size
                    encoder = H264Encoder(
                        self._size, self._fps, self._rendition.bitrate_bps, profile="Baseline"
                    )
                due = last_key_pts is None or pts - last_key_pts >= KEYFRAME_EVERY_S * 90_000
                wanted = self._take_wish() or due
                # A thread cannot be cancelled: the encoder would be closed while it still works.
                data, keyframe = await to_its_end(
                    asyncio.to_thread(encoder.encode, planes, pts, keyframe=wanted)
                )
                if keyframe:
                    last_key_pts = pts
                yield pts, data, keyframe
        finally:
            if encoder is not None:
                encoder.close()

    def _take_wish(self) -> bool:
        wanted, self._keyframe_wanted = self._keyframe_wanted, False
        return wanted

    async def _next(self) -> Packetized:
        try:
            packetized = await anext(self._ready)
        except StopAsyncIteration:
            raise MediaStreamError from None
        self.sent += 1
        return packetized

    async def _next_sound(self) -> Packetized:
        assert self._sound is not None
        try:
            packetized = await anext(self._sound)
        except StopAsyncIteration:
            raise MediaStreamError from None
        self.sound_sent += 1
        return packetized

    def _want_keyframe(self) -> None:
        self._keyframe_wanted = True


def _no_keyframe() -> None:
    """Sound has none."""


@asynccontextmanager
async def watch_whep(
    url: str, token: str | None, *, clock: Clock
) -> AsyncIterator[tuple[VideoReceiver, asyncio.Task[None]]]:
    """Watch a WHEP address: yields the receiver, and a task that ends when the server hangs up.

    Raises what `Signalling.post` raises, or MediaError when no connection came about.
    """
    peer = Peer(IceConfig())
    transceiver = peer.add("video", "recvonly")
    peer.prefer(transceiver, [Codec.H264, Codec.VP8])
    video = VideoReceiver("viewer", transceiver.receiver, max_side=VIEW_MAX_SIDE, clock=clock)
    try:
        async with Signalling(url, token) as signalling:
            await peer.accept(await signalling.post(await peer.offer()))
            await peer.connected()
            async with asyncio.TaskGroup() as tasks:
                feedback = tasks.create_task(video.run_feedback())
                gone = tasks.create_task(_end_with(peer, video))
                yield video, gone
                feedback.cancel()
                gone.cancel()
    finally:
        video.end()
        await peer.close()


async def _end_with(peer: Peer, video: VideoReceiver) -> None:
    await peer.wait_gone()
    video.end()
