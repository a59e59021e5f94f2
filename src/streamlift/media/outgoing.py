"""What one peer is sent: pictures from a cursor, and sound as late as the pictures are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from aiortc.mediastreams import MediaStreamError

from streamlift.clock import Clock
from streamlift.frames import EncodedFrame
from streamlift.media.audio import AudioFeed, VideoLag
from streamlift.media.packetizer import Packetized, Packetizer
from streamlift.media.peer import PayloadTrack

__all__ = ["Frames", "OutgoingMedia"]

Frames = AsyncIterator[EncodedFrame]


class OutgoingMedia:
    """The two tracks of one peer; nothing is sent before `begin`.

    `on_end` is awaited when the pictures end.
    """

    def __init__(
        self, packetizer: Packetizer, *, clock: Clock, on_end: Callable[[], Awaitable[None]]
    ) -> None:
        self.video = PayloadTrack("video", self._next_picture)
        self.audio = PayloadTrack("audio", self._next_sound)
        self._packetizer = packetizer
        self._clock = clock
        self._on_end = on_end
        self._frames: Frames | None = None
        self._sound: AudioFeed | None = None
        self._lag = VideoLag()
        self._begun = asyncio.Event()

    @property
    def lag_s(self) -> float:
        """How long pictures take from their arrival to being sent, in the median."""
        return self._lag.seconds

    def begin(self, frames: Frames, sound: AudioFeed | None) -> None:
        """Send from now on. `sound` may be None where no audio was negotiated."""
        self._frames, self._sound = frames, sound
        self._begun.set()

    async def _next_picture(self) -> Packetized:
        """Called by the sender for the next frame; its way to end is MediaStreamError."""
        await self._begun.wait()
        assert self._frames is not None
        try:
            frame = await anext(self._frames)
        except StopAsyncIteration:
            await self._on_end()
            raise MediaStreamError from None
        self._lag.observe(self._clock.now_s() - frame.arrived_s)
        return self._packetizer.packetize(frame)

    async def _next_sound(self) -> Packetized:
        """The next Opus packet, when the picture that arrived with it has gone out."""
        await self._begun.wait()
        packet = await self._sound.get() if self._sound is not None else None
        if packet is None:
            raise MediaStreamError
        early_s = packet.arrived_s + self._lag.seconds - self._clock.now_s()
        if early_s > 0:
            await asyncio.sleep(early_s)
        return Packetized(packet.pts, (packet.data,))
