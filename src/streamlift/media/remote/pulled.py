"""One WebRTC connection that receives: what WHEP, daydream.live and Scope are pulled through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from streamlift.clock import Clock
from streamlift.config import IceConfig
from streamlift.frames import Codec, CodedAudio, Frame, IngestCounts
from streamlift.media.incoming.liveness import Liveness, attend
from streamlift.media.incoming.video_in import VideoReceiver
from streamlift.media.rtc.audio import AudioReceiver
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.formats import sets_by_format
from streamlift.media.rtc.sdp import video_formats

__all__ = ["Pulled"]

NO_PICTURE_S = 5.0


class Pulled:
    """Fits `pull.Pictures`; the source does the signalling. Opus is relayed, other sound is not."""

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
        self._clock = clock
        self._liveness = Liveness(NO_PICTURE_S)
        self._sound: AudioReceiver | None = None
        if audio:
            heard = self.peer.add("audio", "recvonly")
            self._sound = AudioReceiver(heard.receiver, clock=clock)

    async def accept(self, answer: str) -> None:
        """Take the answer. Raises MalformedSdp when it cannot be read."""
        self.video.sets.told = sets_by_format(video_formats(answer))
        await self.peer.accept(answer)

    async def aclose(self) -> None:
        self._end_media()
        await self.peer.close()

    # ---- pull.Pictures ----

    @property
    def counts(self) -> IngestCounts:
        return self.video.counts

    @property
    def absence(self) -> str | None:
        return self._liveness.absence(self.video.undecoded_since_s, self._clock.now_s())

    @property
    def sound(self) -> AsyncIterator[CodedAudio] | None:
        return self._sound

    def __aiter__(self) -> AsyncIterator[Frame]:
        return aiter(self.video)

    def request_keyframe(self) -> None:
        self.video.request_keyframe()

    async def attend(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            beside = (
                tasks.create_task(self.video.run_feedback()),
                tasks.create_task(attend(self._liveness, self.peer, self.video, self._clock)),
            )
            await self.peer.wait_gone()
            for task in beside:
                task.cancel()
        self._end_media()

    def _end_media(self) -> None:
        self.video.end()
        if self._sound is not None:
            self._sound.end()
