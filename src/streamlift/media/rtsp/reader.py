"""One RTSP reader's connection: what it asks for, and the pictures and the sound that it gets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from streamlift.clock import Clock
from streamlift.config import NAME_PATTERN
from streamlift.errors import MediaError, StreamliftError, UnknownStream
from streamlift.frames import Codec, EncodedFrame
from streamlift.media.outgoing.media_out import Frames
from streamlift.media.outgoing.packetizer import Packetizer
from streamlift.media.rtc.audio import AUDIO_CLOCK_HZ, AudioFeed, VideoLag
from streamlift.media.rtsp.description import OPUS, VIDEO, Description, describe
from streamlift.media.rtsp.messages import (
    Request,
    password_of,
    read_request,
    read_transport,
    response,
)
from streamlift.media.rtsp.track import Track

__all__ = ["Door", "Opened", "Reader", "Refused"]

logger = logging.getLogger(__name__)

VIDEO_CLOCK_HZ = 90_000
BUFFER_BYTES = 256 * 1024
"""What may wait in the connection; beyond that a reader misses pictures up to a keyframe."""
_STUCK_S = 10.0
_FIRST_PICTURE_S = 5.0
_UNTIL_PLAY_S = 30.0
"""From connecting to PLAY: until then a reader holds one of the handshakes that there may be."""
_PUBLIC = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER, SET_PARAMETER"


class Refused(Exception):
    """A request is answered with this status; `closes`: and the connection ends."""

    def __init__(
        self, status: int, headers: dict[str, str] | None = None, *, closes: bool = False
    ) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers or {}
        self.closes = closes


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream that may be read: its frames in H.264, and its sound if it has any."""

    frames: Frames
    sound: AudioFeed | None


class Door(Protocol):
    """What a reader needs of the service."""

    async def admit(self, stream: str, password: str | None) -> None:
        """Raises Refused when the stream may not be read with this password."""
        ...

    def open(self, stream: str, reader: Reader) -> AbstractContextManager[Opened]:
        """Raises StreamliftError when nobody publishes it, or no more may be read."""
        ...


class Reader:
    """Fits `service.sessions.PeerSession`. `run` serves the connection to its end."""

    codec: Codec | None = Codec.H264
    rtp_origin: int | None = None

    def __init__(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        door: Door,
        packetizer: Packetizer,
        *,
        clock: Clock,
        unix_s: Callable[[], float],
        head_s: float,
    ) -> None:
        self._in, self._out = streams
        self._door = door
        self._packetizer = packetizer
        self._clock = clock
        self._unix_s = unix_s
        self._head_s = head_s
        self._stream: str | None = None
        self._session = secrets.token_hex(8)
        self._opened: Opened | None = None
        self._first: EncodedFrame | None = None
        self._description: Description | None = None
        self._tracks: dict[int, Track] = {}
        self._held = contextlib.ExitStack()
        self._playing: asyncio.Task[None] | None = None
        self._ended: str | None = None

    # ---- service.sessions.PeerSession ----

    @property
    def state(self) -> str:
        """connecting, live or closed."""
        if self._ended is not None:
            return "closed"
        return "connecting" if self._playing is None else "live"

    @property
    def media_bytes(self) -> int:
        return sum(track.octets for track in self._tracks.values())

    async def packets_lost(self) -> int:
        """None: TCP loses nothing. What a slow reader misses is counted by its cursor."""
        return 0

    async def add_candidates(self, candidates: Sequence[str]) -> None:
        """Raises MediaError: there is no ICE here."""
        raise MediaError("an RTSP session has no candidates", found=len(candidates))

    async def aclose(self, reason: str) -> None:
        if self._ended is None:
            self._ended = reason
            self._out.close()

    # ---- the connection ----

    async def run(self) -> None:
        """Serve requests until the connection ends."""
        transport = self._out.transport
        transport.set_write_buffer_limits(high=BUFFER_BYTES)
        until_s = self._clock.now_s() + _UNTIL_PLAY_S
        try:
            while self._ended is None:
                left_s = max(0.0, until_s - self._clock.now_s())
                limit_s = None if self._playing is not None else min(self._head_s, left_s)
                try:
                    async with asyncio.timeout(limit_s):
                        request = await read_request(self._in)
                except TimeoutError:
                    self._end("it asks for nothing, or never plays")
                    break
                except MediaError as error:
                    self._out.write(response(None, 400))
                    self._end(str(error))
                    break
                if request is None:
                    self._end("the reader has gone")
                    break
                await self._answer(request)
        finally:
            await self._finish()

    async def _finish(self) -> None:
        self._end("the connection ended")
        if self._playing is not None:
            self._playing.cancel()
            await asyncio.wait([self._playing])
        self._held.close()
        self._out.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._out.wait_closed()

    def _end(self, reason: str) -> None:
        if self._ended is None:
            self._ended = reason
            if self._stream is not None:
                logger.info("stream %s: RTSP reader ends: %s", self._stream, reason)

    async def _answer(self, request: Request) -> None:
        try:
            answer = await self._handle(request)
        except Refused as refused:
            answer = response(request, refused.status, refused.headers)
            if refused.closes:
                self._end(f"refused with {refused.status}")
        except UnknownStream:
            answer = response(request, 404)
        except StreamliftError as error:
            logger.info("an RTSP reader of %r is refused: %s", request.path[:80], error)
            answer = response(request, 503, {"Retry-After": "2"})
        if answer and not self._out.is_closing():
            self._out.write(answer)
            if self._ended is not None:
                with contextlib.suppress(ConnectionError, TimeoutError):
                    async with asyncio.timeout(1.0):
                        await self._out.drain()

    async def _handle(self, request: Request) -> bytes:
        session = {"Session": f"{self._session};timeout=60"}
        match request.method:
            case "OPTIONS":
                return response(request, 200, {"Public": _PUBLIC})
            case "GET_PARAMETER" | "SET_PARAMETER":
                return response(request, 200, session)
            case "DESCRIBE":
                return await self._describe(request)
            case "SETUP":
                return await self._set_up(request, session)
            case "PLAY":
                return self._play(request, session)
            case "TEARDOWN":
                self._end("the reader is done")
                return response(request, 200, session)
        raise Refused(405, {"Allow": _PUBLIC})

    async def _describe(self, request: Request) -> bytes:
        await self._open(request)
        assert self._description is not None
        base = request.url.rstrip("/") + "/"
        headers = {"Content-Type": "application/sdp", "Content-Base": base}
        return response(request, 200, headers, self._description.sdp)

    async def _open(self, request: Request) -> None:
        """Sign in, and have the stream's first picture. Raises Refused or StreamliftError."""
        stream = request.path.partition("/")[0]
        if self._stream is not None:
            if stream != self._stream:
                raise Refused(459)  # one connection reads one stream
            return
        if not re.fullmatch(NAME_PATTERN, stream):
            raise Refused(404)
        await self._door.admit(stream, password_of(request.headers.get("authorization", "")))
        opened = self._held.enter_context(self._door.open(stream, self))
        try:
            async with asyncio.timeout(_FIRST_PICTURE_S):
                self._first = await anext(opened.frames)
        except (TimeoutError, StopAsyncIteration):
            raise Refused(503, {"Retry-After": "2"}) from None
        finally:
            if self._first is None:
                self._held.close()
        self._stream, self._opened = stream, opened
        self._description = describe(stream, self._first, sound=opened.sound is not None)

    async def _set_up(self, request: Request, session: dict[str, str]) -> bytes:
        await self._open(request)
        if self._playing is not None:
            raise Refused(455)
        found = re.fullmatch(rf"{NAME_PATTERN}(?:/trackID=(\d))?", request.path)
        number = int(found[1] or 0) if found else -1
        assert self._description is not None
        if not 0 <= number < self._description.tracks:
            raise Refused(404)
        transport = read_transport(request.headers.get("transport", ""))
        if transport is None:
            raise Refused(461)  # players then ask for TCP, or tell to
        channels = transport.channels or (2 * number, 2 * number + 1)
        taken = {c for n, t in self._tracks.items() if n != number for c in t.channels}
        if taken & set(channels):
            raise Refused(461)
        payload, clock_hz = ((VIDEO, VIDEO_CLOCK_HZ), (OPUS, AUDIO_CLOCK_HZ))[number]
        track = self._tracks[number] = Track(payload, clock_hz, channels)
        low, high = channels
        told = f"RTP/AVP/TCP;unicast;interleaved={low}-{high};ssrc={track.ssrc:08X}"
        return response(request, 200, {"Transport": told, **session})

    def _play(self, request: Request, session: dict[str, str]) -> bytes:
        if not self._tracks or self._opened is None or self._first is None:
            raise Refused(455)
        if request.headers.get("session", self._session).partition(";")[0] != self._session:
            raise Refused(454)
        headers = {"Range": "npt=now-", **session}
        if self._playing is None:
            if (video := self._tracks.get(0)) is not None:
                url = f"{request.url.rstrip('/')}/trackID=0"
                time = video.rtp_time(self._first.pts)
                headers["RTP-Info"] = f"url={url};seq={video.next_sequence};rtptime={time}"
            # After the answer: nothing is awaited between here and its being written.
            self._playing = asyncio.create_task(self._send(self._opened, self._first))
        return response(request, 200, headers)

    async def _send(self, opened: Opened, first: EncodedFrame) -> None:
        lag, reason = VideoLag(), "an error in this service; its log has the details"
        try:
            async with asyncio.TaskGroup() as tasks:
                sound = tasks.create_task(self._send_sound(opened.sound, lag))
                reason = await self._send_pictures(opened.frames, first, lag)
                sound.cancel()
        except* (ConnectionError, TimeoutError):
            reason = "the reader takes nothing"
        except* Exception:
            # Broad on purpose: whatever it is, this connection ends, and no other.
            logger.exception("stream %s: an RTSP reader failed", self._stream)
        finally:
            self._end(reason)
            self._out.close()

    async def _send_pictures(self, frames: Frames, first: EncodedFrame, lag: VideoLag) -> str:
        track = self._tracks.get(0)
        frame = first
        while True:
            lag.observe(self._clock.now_s() - frame.arrived_s)
            if frame.size != first.size:
                return "the picture's size has changed; connect again"
            if track is not None:
                payloads = self._packetizer.packetize(frame).payloads
                await self._write(track, frame.pts, payloads, frame.arrived_s)
            try:
                frame = await anext(frames)
            except StopAsyncIteration:
                return "the stream has ended"

    async def _send_sound(self, sound: AudioFeed | None, lag: VideoLag) -> None:
        track = self._tracks.get(1)
        if sound is None or track is None:
            return
        async for packet in sound:
            early_s = packet.arrived_s + lag.seconds - self._clock.now_s()
            if early_s > 0:
                await asyncio.sleep(early_s)
            await self._write(track, packet.pts, (packet.data,), packet.arrived_s)

    async def _write(
        self, track: Track, pts: int, payloads: Sequence[bytes], arrived_s: float
    ) -> None:
        """Raises TimeoutError when the reader took nothing for ten seconds, ConnectionError."""
        now_s = self._clock.now_s()
        report = track.report(pts, self._unix_s() - (now_s - arrived_s), now_s)
        self._out.write(report + track.packets(pts, payloads))
        # While this waits the cursor falls behind, and then goes on at a keyframe.
        async with asyncio.timeout(_STUCK_S):
            await self._out.drain()
