"""What one peer is sent: pictures from a cursor, and sound as late as the pictures are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from aiortc.mediastreams import MediaStreamError

from streamlift.clock import Clock
from streamlift.frames import EncodedFrame
from streamlift.media.outgoing.packetizer import Packetized, Packetizer
from streamlift.media.rtc.audio import AudioFeed, VideoLag
from streamlift.media.rtc.sender import PayloadTrack
from streamlift.metrics import Metrics

__all__ = ["Frames", "OutgoingMedia"]


class Frames(Protocol):
    """What a viewer is given; a `routing.Cursor` fits. It begins with a keyframe."""

    def __aiter__(self) -> AsyncIterator[EncodedFrame]: ...

    async def __anext__(self) -> EncodedFrame: ...

    def request_keyframe(self) -> None:
        """The peer lost a picture; whoever makes the frames is asked for a keyframe."""
        ...


class OutgoingMedia:
    """The two tracks of one peer; nothing is sent before `begin`.

    `on_end` is awaited when the pictures end. Each picture that goes to the peer is counted in
    `frames_total{stage="sent"}`: with two viewers, twice.
    """

    def __init__(
        self,
        packetizer: Packetizer,
        *,
        clock: Clock,
        metrics: Metrics,
        on_end: Callable[[], Awaitable[None]],
    ) -> None:
        self.video = PayloadTrack("video", self._next_picture)
        self.audio = PayloadTrack("audio", self._next_sound)
        self._packetizer = packetizer
        self._clock = clock
        self._metrics = metrics
        self._on_end = on_end
        self._frames: AsyncIterator[EncodedFrame] | None = None
        self._sound: AudioFeed | None = None
        self._lag = VideoLag()
        self._last_pts: int | None = None
        self._begun = asyncio.Event()

    @property
    def lag_s(self) -> float:
        """How long pictures take from their arrival to being sent, in the median."""
        return self._lag.seconds

    def begin(self, frames: AsyncIterator[EncodedFrame], sound: AudioFeed | None) -> None:
        """Send from now on. `sound` may be None where no audio was negotiated."""
        self._frames, self._sound = frames, sound
        self._begun.set()

    def switch(self, frames: AsyncIterator[EncodedFrame]) -> None:
        """Go on with other frames, the first of which is a keyframe; then the old may be closed."""
        self._frames = frames

    async def _next_picture(self) -> Packetized:
        """Called by the sender for the next frame; its way to end is MediaStreamError."""
        await self._begun.wait()
        frame = await self._next_frame()
        self._lag.observe(self._clock.now_s() - frame.arrived_s)
        packetized = self._packetizer.packetize(frame)
        if self._last_pts is not None and frame.pts <= self._last_pts:
            # Behind a switch: this picture, or a later one, went out in the other rendition. Time
            # must rise, and the decoder needs every picture since the keyframe.
            packetized = Packetized(self._last_pts + 1, packetized.payloads)
        self._last_pts = packetized.pts
        self._metrics.count("frames_total", stage="sent")
        return packetized

    async def _next_frame(self) -> EncodedFrame:
        while True:
            frames = self._frames
            assert frames is not None
            try:
                return await anext(frames)
            except StopAsyncIteration:
                if frames is self._frames:  # else they were switched and closed
                    await self._on_end()
                    raise MediaStreamError from None

    async def _next_sound(self) -> Packetized:
        """The next Opus packet, when the picture that arrived with it has gone out."""
        await self._begun.wait()
        if self._sound is None:
            raise MediaStreamError
        try:
            packet = await anext(self._sound)
        except StopAsyncIteration:
            raise MediaStreamError from None
        early_s = packet.arrived_s + self._lag.seconds - self._clock.now_s()
        if early_s > 0:
            await asyncio.sleep(early_s)
        return Packetized(packet.pts, (packet.data,))
