"""A WHIP publisher's session: answers the offer, and is the stream's source of frames."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from streamlift.clock import Clock
from streamlift.config import IceConfig, IngestConfig
from streamlift.errors import MediaError
from streamlift.frames import Codec, CodedAudio, Frame, IngestCounts
from streamlift.media.incoming.liveness import LOOK_EVERY_S, Liveness, attend
from streamlift.media.incoming.video_in import VideoReceiver
from streamlift.media.rtc.audio import AudioReceiver
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.formats import sets_by_format
from streamlift.media.rtc.packet import MediaPacket
from streamlift.media.rtc.receiver import ReceiverTap
from streamlift.media.rtc.sdp import Offer, OfferedMedia, with_start_bitrate
from streamlift.metrics import Metrics

__all__ = ["WhipPublisher"]

logger = logging.getLogger(__name__)

START_KBIT_S = 2_000
_INGEST_ORDER = (Codec.H264, Codec.VP8)


class WhipPublisher:
    """Fits `routing.ports.Publisher`. `answer()` first, then `run()` beside the stream."""

    def __init__(
        self,
        stream: str,
        ice: IceConfig,
        *,
        ingest: IngestConfig,
        clock: Clock,
        metrics: Metrics | None = None,
    ) -> None:
        self.stream = stream
        self.reason: str | None = None
        """Why it ended; None while it lives."""
        self._clock = clock
        self._peer = Peer(ice, metrics)
        video = self._peer.add("video", "recvonly")
        self._peer.prefer(video, _INGEST_ORDER)
        self._video = VideoReceiver(
            f"stream {stream}",
            video.receiver,
            max_side=ingest.max_size,
            clock=clock,
            metrics=metrics,
        )
        self._first_media_s = ingest.first_media_s
        self._liveness = Liveness(ingest.no_picture_s)
        self._audio: AudioReceiver | None = None
        self._ended = asyncio.Event()

    # ---- routing.ports.Publisher ----

    @property
    def audio(self) -> AsyncIterator[CodedAudio] | None:
        """The publisher's Opus packets; None if it sends none. To be read by one reader."""
        return self._audio

    @property
    def counts(self) -> IngestCounts:
        """Of the pictures; packets of sound that were dropped are `audio_late`, `audio_stale`."""
        counts = self._video.counts
        if self._audio is None or not self._audio.dropped:
            return counts
        sound = {f"audio_{reason}": count for reason, count in self._audio.dropped.items()}
        return replace(counts, dropped={**counts.dropped, **sound})

    @property
    def absence(self) -> str | None:
        """Why there are no pictures of it; None while the peer is there, quiet or not."""
        return self._liveness.absence(self._video.undecoded_since_s, self._clock.now_s())

    def __aiter__(self) -> AsyncIterator[Frame]:
        return aiter(self._video)

    def request_keyframe(self) -> None:
        self._video.request_keyframe()

    async def aclose(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            logger.info("stream %s: publisher ends: %s", self.stream, reason)
        self._ended.set()
        self._end_media()

    # ---- the session ----

    @property
    def state(self) -> str:
        """connecting, live or closed."""
        if self.reason is not None:
            return "closed"
        return "live" if self._peer.guard.first.is_set() else "connecting"

    @property
    def codec(self) -> Codec | None:
        return self._video.codec

    @property
    def rtp_origin(self) -> int | None:
        """Of no use to a publisher: it chose the origin itself."""
        return None

    @property
    def media_bytes(self) -> int:
        return self._video.media_bytes

    async def packets_lost(self) -> int:
        return await self._video.packets_lost()

    async def answer(self, offer: Offer) -> str:
        """Answer the offer. Raises MalformedSdp or UnsupportedOffer; nothing stays open then."""
        try:
            self._video.sets.told = sets_by_format(offer.video.formats)
            self._video.expect(offer.video.simulcast)
            if offer.audio is not None:
                self._accept_audio(offer.audio)
            return with_start_bitrate(await self._peer.answer(offer), START_KBIT_S)
        except BaseException:
            self._end_media()
            await self._peer.close()
            raise

    async def add_candidates(self, candidates: Sequence[str]) -> None:
        await self._peer.add_candidates(candidates)

    async def wait_live(self, *, shown: bool = False) -> bool:
        """Wait for the first picture, or until there should have been one (True; `absence` then
        says why there is none), or for the end (False). `shown`: for one that was decoded, too.
        """
        video = self._video
        awaited = video.first_picture if shown else video.first_media
        async with asyncio.TaskGroup() as tasks:
            ended = tasks.create_task(self._ended.wait())
            first = tasks.create_task(awaited.wait())
            while not (ended.done() or first.done()) and self.absence is None:
                await asyncio.wait(
                    (ended, first), timeout=LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED
                )
            ended.cancel()
            first.cancel()
        return self.reason is None

    async def run(self) -> None:
        """Live until the peer is gone, a deadline passes or `aclose` is called."""
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._watch())
                feedback = tasks.create_task(self._video.run_feedback())
                await self._ended.wait()
                watch.cancel()
                feedback.cancel()
        finally:
            await self.aclose("session ended")
            await self._peer.close()

    def _accept_audio(self, offered: OfferedMedia) -> None:
        """Opus is kept for relaying; what else there is, is read and forgotten."""
        transceiver = self._peer.add("audio", "recvonly")
        if not offered.has_opus:
            ReceiverTap(transceiver.receiver, _drain)
            return
        self._peer.prefer_opus(transceiver)
        audio = AudioReceiver(transceiver.receiver, clock=self._clock)
        if offered.direction in ("sendonly", "sendrecv"):
            self._audio = audio

    def _end_media(self) -> None:
        self._video.end()
        if self._audio is not None:
            self._audio.end()

    async def _watch(self) -> None:
        try:
            await self._peer.connected()
        except MediaError as error:
            await self.aclose(str(error))
            return
        try:
            async with asyncio.timeout(self._first_media_s):
                await self._peer.guard.first.wait()
        except TimeoutError:
            await self.aclose(f"no media within {self._first_media_s:g} s of connecting")
            return
        async with asyncio.TaskGroup() as tasks:
            attending = tasks.create_task(
                attend(self._liveness, self._peer, self._video, self._clock)
            )
            await self._peer.wait_gone()
            attending.cancel()
        await self.aclose("publisher disconnected")


def _drain(packet: MediaPacket, /) -> None:
    """Audio that cannot be relayed is accepted all the same: half a session is worse than none."""
