"""A WHEP viewer: encoded frames in, RTP out, packetized once for all viewers."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction

import av
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.mediastreams import MediaStreamError

from streamlift.clock import VIDEO_CLOCK_HZ, Clock
from streamlift.config import IceConfig
from streamlift.errors import StreamError, UnsupportedOffer
from streamlift.frames import Codec, EncodedFrame
from streamlift.media.audio import AudioFeed, VideoLag
from streamlift.media.peer import PayloadTrack, Peer, SenderTap, negotiated_codec
from streamlift.media.sdp import Offer, OfferedMedia

__all__ = ["Packetizer", "WhepViewer"]

logger = logging.getLogger(__name__)

CONNECT_S = 10.0
_CACHED = 128
Frames = AsyncIterator[EncodedFrame]
_TIME_BASE = Fraction(1, VIDEO_CLOCK_HZ)


@dataclass(frozen=True, slots=True, eq=False)
class Packetized:
    """Fits `peer.SentFrame`."""

    pts: int
    payloads: tuple[bytes, ...]


class Packetizer:
    """RTP payloads of encoded frames (RFC 6184, RFC 7741), made once and shared by all viewers."""

    def __init__(self) -> None:
        # Keyed by identity; the frame itself is kept in the value so that its id stays its own.
        self._made: OrderedDict[int, tuple[EncodedFrame, Packetized]] = OrderedDict()
        self._h264 = H264Encoder()
        self._vp8 = Vp8Encoder()

    def packetize(self, frame: EncodedFrame) -> Packetized:
        made = self._made.get(id(frame))
        if made is not None:
            return made[1]
        packet = av.Packet(frame.data)
        packet.pts = frame.pts
        packet.time_base = _TIME_BASE
        packer = self._h264 if frame.rendition.codec is Codec.H264 else self._vp8
        payloads, _ = packer.pack(packet)
        packetized = Packetized(frame.pts, tuple(payloads))
        self._made[id(frame)] = (frame, packetized)
        if len(self._made) > _CACHED:
            self._made.popitem(last=False)
        return packetized


class WhepViewer:
    """One viewer's session. `answer()` first, then `run(frames)`."""

    def __init__(
        self,
        stream: str,
        ice: IceConfig,
        packetizer: Packetizer,
        *,
        clock: Clock,
        on_keyframe_request: Callable[[], None],
    ) -> None:
        self.stream = stream
        self.codec: Codec | None = None
        self.reason: str | None = None
        self._peer = Peer(ice)
        self._packetizer = packetizer
        self._clock = clock
        self._on_keyframe_request = on_keyframe_request
        self._frames: Frames | None = None
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()
        self._tap: SenderTap | None = None
        self._sound: AudioFeed | None = None
        self._lag = VideoLag()
        self._live = False

    @property
    def state(self) -> str:
        """connecting, live or closed."""
        if self.reason is not None:
            return "closed"
        return "live" if self._live else "connecting"

    @property
    def rtp_origin(self) -> int | None:
        return self._tap.rtp_origin if self._tap else None

    @property
    def media_bytes(self) -> int:
        return self._tap.octets_sent if self._tap else 0

    async def packets_lost(self) -> int:
        return await self._tap.packets_lost() if self._tap else 0

    async def answer(self, offer: Offer, codecs: tuple[Codec, ...], *, sound: bool = False) -> str:
        """Answer the offer with the first of `codecs` that the viewer has too.

        With `sound`, an offered audio section is answered `sendonly`, else `inactive`. Raises
        MalformedSdp, or UnsupportedOffer when no codec fits.
        """
        shared = [codec for codec in codecs if codec in offer.video_codecs]
        if not shared:
            await self._peer.close()
            raise UnsupportedOffer(
                "no video codec in common for this view",
                found=list(offer.video_codecs),
                expected=list(codecs),
            )
        try:
            for media in offer.media:
                if media.kind == "audio":
                    self._answer_audio(media, sound=sound)
                    continue
                track = PayloadTrack("video", self._next)
                transceiver = self._peer.add("video", "sendonly", track)
                self._peer.prefer(transceiver, shared[:1])
                self._tap = SenderTap(transceiver.sender, self._on_keyframe_request)
            answer = await self._peer.answer(offer)
            self.codec = negotiated_codec(transceiver)
        except BaseException:
            await self._peer.close()
            raise
        return answer

    async def add_candidates(self, candidates: Sequence[str]) -> None:
        await self._peer.add_candidates(candidates)

    async def run(
        self,
        watch: Callable[[], AbstractContextManager[Frames]],
        sound: AudioFeed | None = None,
    ) -> None:
        """Send what `watch()` gives until it ends, the viewer is gone, or `aclose` is called.

        `watch` is called once media can flow, so that the first frame sent is a fresh keyframe.
        `sound` is sent beside it, if audio was negotiated, as late as the pictures are.
        """
        self._sound = sound
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch(watch))
                await self._ended.wait()
                watching.cancel()
        finally:
            await self.aclose("session ended")
            await self._peer.close()

    async def aclose(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            logger.info("stream %s: viewer ends: %s", self.stream, reason)
        self._ended.set()

    async def _watch(self, watch: Callable[[], AbstractContextManager[Frames]]) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                connected = await self._peer.wait_connected()
        except TimeoutError:
            await self.aclose(f"not connected within {CONNECT_S:g} s")
            return
        if not connected:
            await self.aclose("connection failed")
            return
        try:
            with watch() as self._frames:
                self._live = True
                self._ready.set()
                await self._peer.wait_gone()
        except StreamError as error:
            await self.aclose(str(error))  # the stream ended while this viewer was connecting
        else:
            await self.aclose("viewer disconnected")

    async def _next(self) -> Packetized:
        """Called by the sender for the next frame; its way to end is MediaStreamError."""
        await self._ready.wait()
        assert self._frames is not None
        try:
            frame = await anext(self._frames)
        except StopAsyncIteration:
            await self.aclose("stream ended")
            raise MediaStreamError from None
        self._lag.observe(self._clock.now_s() - frame.arrived_s)
        return self._packetizer.packetize(frame)

    async def _next_sound(self) -> Packetized:
        """The next Opus packet, when the picture that arrived with it has gone out."""
        await self._ready.wait()
        packet = await self._sound.get() if self._sound is not None else None
        if packet is None:
            raise MediaStreamError
        early_s = packet.arrived_s + self._lag.seconds - self._clock.now_s()
        if early_s > 0:
            await asyncio.sleep(early_s)
        return Packetized(packet.pts, (packet.data,))

    def _answer_audio(self, offered: OfferedMedia, *, sound: bool) -> None:
        if not (sound and offered.has_opus):
            self._peer.add("audio", "inactive")  # never a refused m-line: some players give up
            return
        track = PayloadTrack("audio", self._next_sound)
        transceiver = self._peer.add("audio", "sendonly", track)
        self._peer.prefer_opus(transceiver)
        SenderTap(transceiver.sender, _no_keyframe)


def _no_keyframe() -> None:
    """Sound has none."""
