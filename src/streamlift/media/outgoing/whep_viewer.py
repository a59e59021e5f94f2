"""A WHEP viewer: encoded frames in, RTP out, packetized once for all viewers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager

from streamlift.clock import Clock
from streamlift.config import IceConfig
from streamlift.errors import MediaError, StreamError, UnsupportedOffer
from streamlift.frames import Codec, EncodedFrame
from streamlift.media.outgoing.link import KeyframeAllowance, LinkWatch
from streamlift.media.outgoing.media_out import Frames, OutgoingMedia
from streamlift.media.outgoing.packetizer import Packetized, Packetizer
from streamlift.media.rtc.audio import AudioFeed
from streamlift.media.rtc.codecs import negotiated_codec
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.sdp import Offer, OfferedMedia
from streamlift.media.rtc.sender import ReceiverReport, SenderTap
from streamlift.metrics import Metrics

__all__ = ["Packetized", "Packetizer", "WhepViewer"]

logger = logging.getLogger(__name__)

Watch = Callable[[bool], AbstractContextManager[Frames]]
"""Opens the frames for a viewer; True asks for those of a thin link."""


class WhepViewer:
    """One viewer's session. `answer()` first, then `run(frames)`."""

    def __init__(
        self,
        stream: str,
        ice: IceConfig,
        packetizer: Packetizer,
        *,
        clock: Clock,
        metrics: Metrics | None = None,
        why_over: Callable[[], str] = lambda: "stream ended",
    ) -> None:
        """`why_over`: asked when there are no more frames."""
        self.stream = stream
        self.codec: Codec | None = None
        self.reason: str | None = None
        self._metrics = metrics or Metrics()
        self._peer = Peer(ice, self._metrics)
        self._media = OutgoingMedia(
            packetizer,
            clock=clock,
            metrics=self._metrics,
            on_end=lambda: self.aclose(why_over()),
        )
        self._clock = clock
        self._keyframes = KeyframeAllowance()
        self._link = LinkWatch()
        self._link_changed = asyncio.Event()
        self._sampled: tuple[float, int] | None = None
        self._sent_bps: float | None = None
        self._ended = asyncio.Event()
        self._tap: SenderTap | None = None
        self._frames: Frames | None = None
        self._live = False

    @property
    def state(self) -> str:
        """connecting, live or closed."""
        if self.reason is not None:
            return "closed"
        return "live" if self._live else "connecting"

    @property
    def slow(self) -> bool:
        """Whether its reports say that its link does not carry the default rendition."""
        return self._link.slow

    @property
    def lag_s(self) -> float:
        """How long a picture takes from its arrival here to being sent on."""
        return self._media.lag_s

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
                transceiver = self._peer.add("video", "sendonly", self._media.video)
                self._peer.prefer(transceiver, shared[:1])
                self._tap = SenderTap(
                    transceiver.sender,
                    self._request_keyframe,
                    on_report=self._take_report,
                    on_resend=lambda: self._metrics.count("rtp_packets_resent_total"),
                )
            answer = await self._peer.answer(offer)
            self.codec = negotiated_codec(transceiver)
        except BaseException:
            await self._peer.close()
            raise
        return answer

    async def add_candidates(self, candidates: Sequence[str]) -> None:
        await self._peer.add_candidates(candidates)

    async def run(self, watch: Watch, sound: AudioFeed | None = None) -> None:
        """Send what `watch(slow)` gives until it ends, the viewer is gone, or `aclose` is called.

        `watch` is called once media can flow, so that the first frame sent is a fresh keyframe,
        and again whenever `slow` changes; each gives an iterator that begins with a keyframe.
        `sound` is sent beside it, if audio was negotiated, as late as the pictures are.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch(watch, sound))
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

    async def _watch(self, watch: Watch, sound: AudioFeed | None) -> None:
        try:
            await self._peer.connected()
        except MediaError as error:
            await self.aclose(str(error))
            return
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._send(watch, sound))
            await self._peer.wait_gone()
            sending.cancel()
            await self.aclose("viewer disconnected")

    async def _send(self, watch: Watch, sound: AudioFeed | None) -> None:
        """Send the rendition that the link carries; never ends but with the stream."""
        showing = contextlib.ExitStack()
        try:
            self._frames = showing.enter_context(watch(self._link.slow))
            self._media.begin(_only(self.codec, self._frames), sound)
            self._live = True
            while True:
                await self._link_changed.wait()
                self._link_changed.clear()
                with contextlib.ExitStack() as coming:
                    frames = coming.enter_context(watch(self._link.slow))
                    pictures = _only(self.codec, frames)
                    first = await anext(pictures)  # until it is there the old ones go on
                    self._media.switch(_chain(first, pictures))
                    self._frames = frames
                    showing.close()
                    showing = coming.pop_all()
        except (StreamError, StopAsyncIteration) as error:
            # The stream ended while this viewer was connecting or changing over.
            await self.aclose(str(error) or "stream ended")
        finally:
            showing.close()

    def _take_report(self, report: ReceiverReport) -> None:
        now_s = self._clock.now_s()
        since_s, before = self._sampled or (now_s, self.media_bytes)
        if self._sampled is None or now_s - since_s >= 1.0:
            self._sampled = (now_s, self.media_bytes)
            if now_s > since_s:
                self._sent_bps = (self.media_bytes - before) * 8 / (now_s - since_s)
        if self._link.observe(report, self._sent_bps, now_s):
            logger.info(
                "stream %s: a viewer's link is %s", self.stream, "slow" if self.slow else "good"
            )
            self._link_changed.set()
            if self.slow:
                self._metrics.count("slow_viewers_total")

    def _request_keyframe(self) -> None:
        self._metrics.count("pli_total", direction="received")
        if self._frames is None:
            return  # nothing was sent yet: the first picture will be a keyframe
        if self._keyframes.allows(self._clock.now_s(), slow=self.slow):
            self._frames.request_keyframe()

    def _answer_audio(self, offered: OfferedMedia, *, sound: bool) -> None:
        if not (sound and offered.has_opus):
            self._peer.add("audio", "inactive")  # never a refused m-line: some players give up
            return
        transceiver = self._peer.add("audio", "sendonly", self._media.audio)
        self._peer.prefer_opus(transceiver)
        SenderTap(transceiver.sender, _no_keyframe)


async def _only(codec: Codec | None, frames: Frames) -> AsyncIterator[EncodedFrame]:
    """Ends at a frame in another codec than was negotiated: of the source view, when a publisher
    of another kind takes over. The viewer's next session will be in that one."""
    async for frame in frames:
        if frame.rendition.codec is not codec:
            return
        yield frame


async def _chain(
    first: EncodedFrame, frames: AsyncIterator[EncodedFrame]
) -> AsyncIterator[EncodedFrame]:
    yield first
    async for frame in frames:
        yield frame


def _no_keyframe() -> None:
    """Sound has none."""
