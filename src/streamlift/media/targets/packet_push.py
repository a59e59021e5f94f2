"""A push whose other side is sent coded pictures and sound as they come: RTMP and RTSP."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from streamlift.clock import VIDEO_CLOCK_HZ
from streamlift.errors import MediaError
from streamlift.frames import CodedAudio, EncodedFrame
from streamlift.media.remote.push import Ended, Listen, Pictures, Push, Watch
from streamlift.media.rtc.audio import AudioFeed, VideoLag

__all__ = ["PacketPush", "Session"]

KEYFRAME_EVERY_S = 2.0
"""Who joins at such a server sees nothing before the next one, and cannot ask us; servers for large
audiences want one at least as often."""


class Session(Protocol):
    """A target that takes media. All raise StreamliftError when the connection has ended."""

    async def picture(self, frame: EncodedFrame) -> None:
        """Send one; waits while the target does not take it."""
        ...

    async def sound(self, packet: CodedAudio) -> None: ...

    async def attend(self) -> str:
        """Read what the target says, until it ends the session; returns why it does."""
        ...


class PacketPush(Push):
    """While a target is slow, pictures wait for it; then they are left out up to a keyframe
    (`frames_skipped`). One that takes nothing for 10 s is left, and tried again.
    A keyframe is asked for when two seconds have had none.

    Another picture size is another session, begun at once.
    """

    _pictures_bytes = 0

    @property
    def bytes_sent(self) -> int:
        """Of pictures, of all connections."""
        return self._pictures_bytes

    @abstractmethod
    def _session(
        self, first: EncodedFrame, *, with_sound: bool
    ) -> AbstractAsyncContextManager[Session]:
        """Connect and say what will come: pictures like `first`, a keyframe."""

    async def _once(self, watch: Watch, listen: Listen, with_sound: bool) -> Ended:
        with watch() as frames, listen() as sound:
            self._take(frames)
            try:
                first = await anext(frames)
            except StopAsyncIteration:
                return Ended.STREAM
            async with self._session(first, with_sound=with_sound) as session:
                self._live()
                return await self._send(session, frames, first, sound if with_sound else None)

    async def _send(
        self, session: Session, frames: Pictures, first: EncodedFrame, sound: AudioFeed | None
    ) -> Ended:
        lag = VideoLag()
        pictures = asyncio.ensure_future(self._send_pictures(session, frames, first, lag))
        others: list[asyncio.Task[None]] = [_task(_until_it_ends(session))]
        if sound is not None:
            others.append(_task(self._send_sound(session, sound, lag)))
        every = [pictures, *others]
        try:
            waiting: set[asyncio.Future[Any]] = set(every)
            while pictures in waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    one.result()  # what it raises ends the connection
            return pictures.result()
        finally:
            for one in every:
                one.cancel()
            await asyncio.gather(*every, return_exceptions=True)

    async def _send_pictures(
        self, session: Session, frames: Pictures, first: EncodedFrame, lag: VideoLag
    ) -> Ended:
        frame, since = first, first.pts
        while True:
            lag.observe(self._clock.now_s() - frame.arrived_s)
            if frame.size != first.size:
                return Ended.SIZE
            if frame.keyframe or frame.pts - since >= KEYFRAME_EVERY_S * VIDEO_CLOCK_HZ:
                since = frame.pts
                if not frame.keyframe:
                    frames.request_keyframe()
            await session.picture(frame)
            self._pictures_bytes += len(frame.data)
            self._metrics.count("frames_total", stage="sent")
            try:
                frame = await anext(frames)
            except StopAsyncIteration:
                return Ended.STREAM

    async def _send_sound(self, session: Session, sound: AudioFeed, lag: VideoLag) -> None:
        async for packet in sound:
            early_s = packet.arrived_s + lag.seconds - self._clock.now_s()
            if early_s > 0:
                await asyncio.sleep(early_s)
            await session.sound(packet)


async def _until_it_ends(session: Session) -> None:
    raise MediaError(await session.attend())


def _task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.ensure_future(work)
