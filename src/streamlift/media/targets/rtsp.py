"""Publishing a stream to an RTSP server (RFC 2326): announced, recorded, interleaved over TCP."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from streamlift.clock import VIDEO_CLOCK_HZ, Clock
from streamlift.errors import ConfigError, MediaError, StreamliftError
from streamlift.frames import CodedAudio, EncodedFrame
from streamlift.media.outgoing.packetizer import Packetizer
from streamlift.media.remote.http import Unreachable
from streamlift.media.remote.push import PushRefused
from streamlift.media.rtc.audio import AUDIO_CLOCK_HZ
from streamlift.media.rtsp.description import OPUS, VIDEO, describe
from streamlift.media.rtsp.messages import HEAD_BYTES
from streamlift.media.rtsp.track import Track
from streamlift.media.targets.line import Line, OpenLine, closing, query_of
from streamlift.media.targets.packet_push import PacketPush

__all__ = ["SCHEMES", "RtspAddress", "RtspPush", "read_rtsp_url"]

SCHEMES = ("rtsp", "rtsps")
ANSWER_S = 10.0
"""For all that is asked before media flows."""
_BODY_BYTES = 64 * 1024
_KEEP_EVERY_S = 20.0
"""Servers end sessions of a minute without a request, unless they count media."""
_NO_SESSION = 454
_FEEDBACK, _PICTURE_LOST = 206, 1
_FINAL = {
    401: "it wants another user or password",
    403: "this user may not publish there",
    405: "it takes no streams there",
    415: "it does not take this video",
    461: "it takes no media over TCP",
}


@dataclass(frozen=True, slots=True)
class RtspAddress:
    """`url` without user and password."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """Without its query, which may hold a secret."""
        return self.url.partition("?")[0]


def read_rtsp_url(url: str, password: str | None) -> RtspAddress:
    """`rtsp://USER:PASSWORD@HOST/PATH`; `password` counts before the address's.

    Raises ConfigError.
    """
    try:
        parts = urlsplit(url)
        user, told = parts.username or "", parts.password or ""
    except ValueError:
        raise ConfigError("this RTSP address cannot be read") from None
    if re.search(r'[\x00-\x1f"]', unquote(user + told) + (password or "")):
        raise ConfigError("a user or password of RTSP cannot hold quotes or control characters")
    netloc = parts.netloc.rpartition("@")[2]
    return RtspAddress(
        parts._replace(netloc=netloc, fragment="").geturl(),
        unquote(user) or ("streamlift" if password else ""),
        unquote(told) if password is None else password,
    )


class RtspPush(PacketPush):
    """H.264 and Opus as they are."""

    kind = "rtsp"

    def __init__(
        self,
        stream: str,
        url: str,
        token: str | None,
        *,
        open_line: OpenLine,
        packetizer: Packetizer,
        unix_s: Callable[[], float],
        **parts: Any,
    ) -> None:
        """`parts`: those of `Push`; `unix_s`: wall time, which reports tie media to. Raises
        ConfigError."""
        self._where = read_rtsp_url(url, token)
        super().__init__(
            stream, (url, token), secrets=(self._where.password, token, *query_of(url)), **parts
        )
        self._open_line = open_line
        self._packetizer = packetizer
        self._unix_s = unix_s

    @property
    def shown_url(self) -> str:
        return self._where.shown

    @asynccontextmanager
    async def _session(
        self, first: EncodedFrame, *, with_sound: bool
    ) -> AsyncIterator[RtspSession]:
        line = await self._open_line(self._where.url, SCHEMES)
        async with closing(line):
            ask = self._request_keyframe
            session = RtspSession(
                line, self._where, self._packetizer, self._clock, self._unix_s, ask
            )
            try:
                async with asyncio.timeout(ANSWER_S):
                    await session.begin(self.stream, first, with_sound=with_sound)
            except TimeoutError:
                raise Unreachable(f"the server did not answer within {ANSWER_S:g} s") from None
            try:
                yield session
            finally:
                await session.aclose()


@dataclass(frozen=True, slots=True)
class Response:
    """Of a server; `challenges` are its WWW-Authenticate headers, other names are in lower case."""

    status: int
    headers: Mapping[str, str]
    challenges: Sequence[str]


class RtspSession:
    """One connection as its publisher; fits `packet_push.Session`."""

    def __init__(
        self,
        line: Line,
        where: RtspAddress,
        packetizer: Packetizer,
        clock: Clock,
        unix_s: Callable[[], float],
        ask_keyframe: Callable[[], None],
    ) -> None:
        self._line = line
        self._where = where
        self._packetizer = packetizer
        self._clock = clock
        self._unix_s = unix_s
        self._ask_keyframe = ask_keyframe
        self._number = 0
        self._challenge: str | None = None
        self._headers: dict[str, str] = {}
        self._asked_s = 0.0
        self._video = Track(VIDEO, VIDEO_CLOCK_HZ, (0, 1))
        self._audio = Track(OPUS, AUDIO_CLOCK_HZ, (2, 3))

    async def begin(self, stream: str, first: EncodedFrame, *, with_sound: bool) -> None:
        """Announce, set up, record. Raises PushRefused or MediaError."""
        description = describe(stream, first, sound=with_sound)
        url = self._where.url
        await self._ask("ANNOUNCE", url, {"Content-Type": "application/sdp"}, description.sdp)
        for number in range(description.tracks):
            low = 2 * number
            transport = f"RTP/AVP/TCP;unicast;interleaved={low}-{low + 1};mode=record"
            track = f"{url.rstrip('/')}/trackID={number}"
            answer = await self._ask("SETUP", track, {"Transport": transport})
            session = answer.headers.get("session", "").partition(";")[0].strip()
            if re.fullmatch(r"[!-~]{1,200}", session):
                self._headers["Session"] = session
        await self._ask("RECORD", url, {"Range": "npt=now-"})

    async def picture(self, frame: EncodedFrame) -> None:
        now_s = self._clock.now_s()
        if now_s - self._asked_s > _KEEP_EVERY_S:
            await self._line.write(self._request("OPTIONS", self._where.url))
        payloads = self._packetizer.packetize(frame).payloads
        await self._send(self._video, frame.pts, payloads, frame.arrived_s)

    async def sound(self, packet: CodedAudio) -> None:
        await self._send(self._audio, packet.pts, (packet.data,), packet.arrived_s)

    async def _send(
        self, track: Track, pts: int, payloads: Sequence[bytes], arrived_s: float
    ) -> None:
        now_s = self._clock.now_s()
        report = track.report(pts, self._unix_s() - (now_s - arrived_s), now_s)
        await self._line.write(report + track.packets(pts, payloads))

    async def attend(self) -> str:
        """Take in what the server sends; a picture that it lost is asked for."""
        while True:
            answer = await self._read()
            if answer is not None and answer.status == _NO_SESSION:
                return "the server has forgotten the session"

    async def aclose(self) -> None:
        with suppress(StreamliftError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._line.write(self._request("TEARDOWN", self._where.url))

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: str = ""
    ) -> Response:
        """Raises PushRefused, or MediaError for any other answer than 200."""
        answer = await self._answer(self._request(method, url, headers, body))
        if answer.status == 401 and self._signs_in(answer.challenges):
            answer = await self._answer(self._request(method, url, headers, body))
        if answer.status in _FINAL:
            raise PushRefused(f"the server answered {answer.status}: {_FINAL[answer.status]}")
        if answer.status != 200:
            raise MediaError(
                f"the server answered {answer.status} to {method}",
                found=answer.status,
                expected=200,
            )
        return answer

    async def _answer(self, request: bytes) -> Response:
        await self._line.write(request)
        while True:
            answer = await self._read()
            if answer is not None:
                return answer

    def _signs_in(self, challenges: Sequence[str]) -> bool:
        """Whether there is a way to answer that was not tried yet."""
        if not self._where.user or self._challenge is not None:
            return False
        offered = sorted(challenges, key=lambda c: not c.lower().startswith("digest "))
        self._challenge = next(
            (c for c in offered if c.partition(" ")[0].lower() in ("digest", "basic")), None
        )
        return self._challenge is not None

    def _request(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: str = ""
    ) -> bytes:
        self._number += 1
        self._asked_s = self._clock.now_s()
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._number}", "User-Agent: streamlift"]
        if self._challenge is not None:
            lines.append(f"Authorization: {self._authorization(method, url)}")
        for name, value in {**(headers or {}), **self._headers}.items():
            lines.append(f"{name}: {value}")
        if body:
            lines.append(f"Content-Length: {len(body.encode())}")
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    def _authorization(self, method: str, url: str) -> str:
        assert self._challenge is not None
        return authorization(self._challenge, self._where, method, url, self._number)

    async def _read(self) -> Response | None:
        """The next answer; None after anything else that may come in between."""
        first = await self._line.read(1)
        if first == b"$":
            await self._read_packet()
            return None
        head = first + await self._line.read_until(b"\r\n\r\n", HEAD_BYTES)
        lines = head.decode("utf-8", "replace").strip().split("\r\n")
        headers: dict[str, str] = {}
        challenges = []
        for line in lines[1:]:
            name, _, value = line.partition(":")
            if name.strip().lower() == "www-authenticate":
                challenges.append(value.strip())
            headers[name.strip().lower()] = value.strip()
        length = headers.get("content-length", "0")
        if not re.fullmatch(r"[0-9]{1,6}", length) or int(length) > _BODY_BYTES:
            raise MediaError("the server's answer is too long", expected=_BODY_BYTES)
        await self._line.read(int(length))
        if lines[0].startswith("TEARDOWN "):
            raise MediaError("the server ended the session")
        found = re.match(r"RTSP/1\.\d (\d{3})(?: |$)", lines[0])
        if found is None and not re.match(r"[A-Z_]+ \S+ RTSP/1\.\d$", lines[0]):
            raise MediaError("this is no RTSP server", found=lines[0][:80])
        return None if found is None else Response(int(found[1]), headers, challenges)

    async def _read_packet(self) -> None:
        _channel, length = struct.unpack("!BH", await self._line.read(3))
        packet = await self._line.read(length)
        if len(packet) > 1 and (packet[1], packet[0] & 0x1F) == (_FEEDBACK, _PICTURE_LOST):
            self._ask_keyframe()


def authorization(challenge: str, where: RtspAddress, method: str, url: str, number: int) -> str:
    """The header's value for a server's challenge: Digest (RFC 2617 with MD5) or Basic.

    `number`: of the request, for servers that count them.
    """
    kind, _, rest = challenge.partition(" ")
    if kind.lower() == "basic":
        return "Basic " + base64.b64encode(f"{where.user}:{where.password}".encode()).decode()
    told = {
        name.lower(): quoted or plain
        for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]*))', rest)
    }
    realm, nonce = told.get("realm", ""), told.get("nonce", "")
    mine = _md5(f"{where.user}:{realm}:{where.password}")
    asked = _md5(f"{method}:{url}")
    if "auth" in told.get("qop", "").split(","):
        count, own = f"{number:08x}", secrets.token_hex(8)
        answer = _md5(f"{mine}:{nonce}:{count}:{own}:auth:{asked}")
        more = f', qop=auth, nc={count}, cnonce="{own}"'
    else:
        answer, more = _md5(f"{mine}:{nonce}:{asked}"), ""
    opaque = f', opaque="{told["opaque"]}"' if "opaque" in told else ""
    return (
        f'Digest username="{where.user}", realm="{realm}", nonce="{nonce}", uri="{url}", '
        f'response="{answer}"{more}{opaque}'
    )


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
