"""Publishing a stream to an RTMP server (Adobe's RTMP 1.0): sign in, announce, send.

Not by FFmpeg: PyAV opens an output's connection with the interpreter held, without a time limit, by
resolving the name itself, and without looking at a certificate.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from streamlift.clock import VIDEO_CLOCK_HZ
from streamlift.errors import ConfigError, MediaError, StreamliftError
from streamlift.frames import CodedAudio, EncodedFrame
from streamlift.media.remote.http import Unreachable
from streamlift.media.remote.push import PushRefused
from streamlift.media.rtc.audio import AUDIO_CLOCK_HZ
from streamlift.media.targets import amf
from streamlift.media.targets.aac import AacSound
from streamlift.media.targets.chunks import FIRST_CHUNK, OUR_CHUNK, ChunkReader, Message, cut
from streamlift.media.targets.flv import (
    AvcUnit,
    aac_header,
    aac_sound,
    avc_header,
    avc_picture,
    read_unit,
)
from streamlift.media.targets.line import Line, OpenLine, closing, query_of
from streamlift.media.targets.packet_push import PacketPush
from streamlift.media.targets.thread import OwnThread

__all__ = ["SCHEMES", "RtmpAddress", "RtmpPush", "read_rtmp_url"]

SCHEMES = ("rtmp", "rtmps")
ANSWER_S = 10.0
"""For the handshake, and for each answer while signing in."""
_HANDSHAKE_BYTES = 1536
_VERSION = 3

_CHUNK_SIZE, _ABORT, _CONTROL, _WINDOW, _BANDWIDTH = 1, 2, 4, 5, 6
_SOUND, _PICTURE, _COMMAND_AMF3, _DATA, _COMMAND = 8, 9, 17, 18, 20
_PING, _PONG = 6, 7
_LINK, _SPEECH, _AUDIO, _VIDEO = 2, 3, 4, 6
"""Channels of the chunk stream: of control, commands, sound and pictures."""
_LARGEST_CHUNK = 0xFFFFFF
_FINAL = {
    "NetConnection.Connect.Rejected",
    "NetConnection.Connect.InvalidApp",
    "NetStream.Publish.Denied",
    "NetStream.Publish.Rejected",
}


@dataclass(frozen=True, slots=True)
class RtmpAddress:
    """`url` is the server's with the application; `key` names the stream there, and is secret."""

    url: str
    app: str
    key: str

    @property
    def shown(self) -> str:
        return f"{self.url}/..."


def read_rtmp_url(url: str, key: str | None) -> RtmpAddress:
    """As programs for streaming have it: a server and a key, or both in one address, of which the
    last part is the key then. Raises ConfigError."""
    parts = urlsplit(url)
    path, query = parts.path.strip("/"), f"?{parts.query}" if parts.query else ""
    if key is None:
        path, _, key = path.rpartition("/")
    if not path or not key:
        raise ConfigError(
            "this RTMP address cannot be used: it needs an application and a stream key",
            expected="rtmp://HOST/APP and the key as token, or rtmp://HOST/APP/KEY",
        )
    return RtmpAddress(f"{parts.scheme}://{parts.netloc}/{path}", path, key + query)


class RtmpPush(PacketPush):
    """H.264 as it is; Opus becomes AAC, which is all that such servers take."""

    kind = "rtmp"

    def __init__(
        self, stream: str, url: str, token: str | None, *, open_line: OpenLine, **parts: Any
    ):
        """`parts`: those of `Push`. Raises ConfigError when the address lacks something."""
        self._where = read_rtmp_url(url, token)
        key = self._where.key
        secret = (key, key.partition("?")[0], token, *query_of(url))
        super().__init__(stream, (url, token), secrets=secret, **parts)
        self._open_line = open_line

    @property
    def shown_url(self) -> str:
        """Without the key."""
        return self._where.shown

    @asynccontextmanager
    async def _session(
        self, first: EncodedFrame, *, with_sound: bool
    ) -> AsyncIterator[RtmpSession]:
        line = await self._open_line(self._where.url, SCHEMES)
        async with closing(line):
            session = RtmpSession(line, self._where)
            try:
                async with asyncio.timeout(ANSWER_S):
                    await session.begin()
            except TimeoutError:
                raise Unreachable(f"the server did not answer within {ANSWER_S:g} s") from None
            try:
                await session.describe(first, with_sound=with_sound, name=self.stream)
                yield session
            finally:
                await session.aclose()


class RtmpSession:
    """One connection as its publisher; fits `packet_push.Session`."""

    def __init__(self, line: Line, where: RtmpAddress) -> None:
        self._line = line
        self._where = where
        self._chunks = ChunkReader(line)
        self._number = 0
        self._stream = 0
        self._chunk_bytes = FIRST_CHUNK
        self._window = 0
        self._acknowledged = 0
        self._first: EncodedFrame | None = None
        self._sets: tuple[bytes, bytes] = (b"", b"")
        self._sound_start: int | None = None
        """What is taken from the pts of sound, so that it begins where its picture does."""
        self._aac: AacSound | None = None
        self._thread: OwnThread | None = None

    async def begin(self) -> None:
        """Handshake, connect, publish. Raises PushRefused or MediaError."""
        await self._shake_hands()
        where = self._where
        connect = {
            "app": where.app,
            "type": "nonprivate",
            "flashVer": "FMLE/3.0 (compatible; streamlift)",
            "tcUrl": where.url,
        }
        await self._ask("connect", connect)
        size = Message(_CHUNK_SIZE, 0, 0, OUR_CHUNK.to_bytes(4, "big"))
        await self._say(size, _LINK)
        self._chunk_bytes = OUR_CHUNK
        await self._command("releaseStream", None, where.key)
        await self._command("FCPublish", None, where.key)
        answer = await self._ask("createStream", None)
        number = answer[-1] if answer else None
        if not isinstance(number, float) or not 0 <= number < 1 << 32:
            raise MediaError("the server gave the stream no number", expected="createStream's")
        self._stream = int(number)
        asked = await self._command("publish", None, where.key, "live", stream=self._stream)
        while True:
            name, values = await self._next_command()
            code = _said(values, "code")
            if name == "_error" and values[:1] == [float(asked)]:
                raise _refusal(code or "publish", values)
            if name == "onStatus":
                if _said(values, "level") == "error":
                    raise _refusal(code, values)
                if code == "NetStream.Publish.Start":
                    return

    async def describe(self, first: EncodedFrame, *, with_sound: bool, name: str) -> None:
        """Say what will come, and send the headers of it."""
        self._first = first
        about: dict[str, amf.Value] = {
            "title": name,
            "width": float(first.size.width),
            "height": float(first.size.height),
            "videocodecid": 7.0,
            "videodatarate": first.rendition.bitrate_bps / 1000,
            "encoder": "streamlift",
        }
        if with_sound:
            self._thread = OwnThread(f"aac-{name}")
            self._aac = await self._thread.do(AacSound)
            about |= {
                "audiocodecid": 10.0,
                "audiosamplerate": float(AUDIO_CLOCK_HZ),
                "audiosamplesize": 16.0,
                "stereo": True,
            }
        data = amf.encode("@setDataFrame", "onMetaData", about)
        await self._say(Message(_DATA, self._stream, 0, data), _AUDIO)
        if self._aac is not None:
            header = aac_header(self._aac.config)
            await self._say(Message(_SOUND, self._stream, 0, header), _AUDIO)

    async def picture(self, frame: EncodedFrame) -> None:
        assert self._first is not None
        unit = read_unit(frame.data)
        time = max(0, (frame.pts - self._first.pts) * 1000 // VIDEO_CLOCK_HZ)
        data = self._new_header(unit, time) if frame.keyframe else b""
        tag = avc_picture(unit, keyframe=frame.keyframe)
        await self._line.write(data + cut(Message(_PICTURE, self._stream, time, tag), _VIDEO))

    def _new_header(self, unit: AvcUnit, time: int) -> bytes:
        """Of another encoder, as after a switch; of the same one nothing has to be said again."""
        if not self._sets[0] or (unit.sps and (unit.sps, unit.pps) != self._sets):
            header = avc_header(unit)
            self._sets = (unit.sps, unit.pps)
            return cut(Message(_PICTURE, self._stream, time, header), _VIDEO)
        return b""

    async def sound(self, packet: CodedAudio) -> None:
        assert self._first is not None
        if self._aac is None or self._thread is None:
            return
        if self._sound_start is None:
            late_s = packet.arrived_s - self._first.arrived_s
            if late_s < 0:
                return
            self._sound_start = packet.pts - round(late_s * AUDIO_CLOCK_HZ)
        tags = b""
        for pts, data in await self._thread.do(self._aac.take, packet):
            time = (pts - self._sound_start) * 1000 // AUDIO_CLOCK_HZ
            if time >= 0:  # an encoder begins with what is before the first sample
                tags += cut(Message(_SOUND, self._stream, time, aac_sound(data)), _AUDIO)
        if tags:
            await self._line.write(tags)

    async def attend(self) -> str:
        """Answer what the server asks; its errors are raised."""
        while True:
            name, values = await self._next_command()
            code = _said(values, "code")
            if name == "onStatus" and _said(values, "level") == "error":
                raise _refusal(code, values)
            if name == "close" or code == "NetStream.Unpublish.Success":
                return "the server ended the session"

    async def aclose(self) -> None:
        """Tell the server that it is over, if that is still possible."""
        if self._thread is not None:
            self._thread.close()
        with suppress(StreamliftError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._command("FCUnpublish", None, self._where.key)
                await self._command("deleteStream", None, float(self._stream))

    async def _shake_hands(self) -> None:
        ours = bytes(8) + secrets.token_bytes(_HANDSHAKE_BYTES - 8)
        await self._line.write(bytes([_VERSION]) + ours)
        version = (await self._line.read(1))[0]
        if version != _VERSION:
            raise MediaError(
                "this is no RTMP server", found=f"version {version}", expected=_VERSION
            )
        theirs = await self._line.read(_HANDSHAKE_BYTES)
        await self._line.write(theirs)
        await self._line.read(_HANDSHAKE_BYTES)  # ours again, which some servers do not repeat

    async def _ask(self, command: str, *values: amf.Value) -> Sequence[amf.Value]:
        """A command and the values of its answer. Raises PushRefused or MediaError."""
        number = await self._command(command, *values)
        while True:
            name, answer = await self._next_command()
            if name in ("_result", "_error") and answer[:1] == [float(number)]:
                if name == "_error":
                    raise _refusal(_said(answer, "code") or command, answer)
                return answer[1:]

    async def _command(self, name: str, *values: amf.Value, stream: int = 0) -> int:
        self._number += 1
        data = amf.encode(name, float(self._number), *values)
        await self._say(Message(_COMMAND, stream, 0, data), _SPEECH)
        return self._number

    async def _say(self, message: Message, channel: int) -> None:
        await self._line.write(cut(message, channel, self._chunk_bytes))

    async def _next_command(self) -> tuple[str, list[amf.Value]]:
        """The next command of the server; what is about the connection is dealt with here."""
        while True:
            message = await self._chunks.message()
            await self._acknowledge()
            if message.kind in (_COMMAND, _COMMAND_AMF3):
                data = message.data[1:] if message.kind == _COMMAND_AMF3 else message.data
                name, *values = amf.decode(data) or [None]
                if isinstance(name, str):
                    return name, values
            else:
                await self._control(message)

    async def _control(self, message: Message) -> None:
        data = message.data
        number = int.from_bytes(data[:4], "big") & 0x7FFFFFFF
        match message.kind:
            case 1:
                if not 1 <= number <= _LARGEST_CHUNK:
                    raise MediaError(
                        "the server's chunks have no size", found=number, expected="1 to 16777215"
                    )
                self._chunks.chunk_bytes = number
            case 2:
                self._chunks.drop(number)
            case 4 if len(data) == 6 and int.from_bytes(data[:2], "big") == _PING:
                pong = _PONG.to_bytes(2, "big") + data[2:]
                await self._say(Message(_CONTROL, 0, 0, pong), _LINK)
            case 5:
                self._window = number
            case 6:
                self._window = self._window or number
                await self._say(Message(_WINDOW, 0, 0, data[:4]), _LINK)

    async def _acknowledge(self) -> None:
        read = self._chunks.read_bytes
        if self._window and read - self._acknowledged >= self._window:
            self._acknowledged = read
            told = (read & 0xFFFFFFFF).to_bytes(4, "big")
            await self._say(Message(3, 0, 0, told), _LINK)


def _said(values: Sequence[amf.Value], name: str) -> str:
    """A text in the last of a command's values, "" where there is none."""
    last = values[-1] if values else None
    said = last.get(name) if isinstance(last, dict) else None
    return said if isinstance(said, str) else ""


def _refusal(code: str, values: Sequence[amf.Value]) -> StreamliftError:
    """In the server's words; final where trying again would not help."""
    words = _said(values, "description")
    message = f"the server refuses: {code or 'without a reason'}"
    message += f" ({words})" if words and words != code else ""
    return PushRefused(message) if code in _FINAL else MediaError(message)
