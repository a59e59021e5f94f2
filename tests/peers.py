"""WebRTC peers for tests: a publisher of coded clips, a viewer of packets, FFmpeg's WHIP muxer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from aiortc.mediastreams import MediaStreamError
from scripts.children import bound
from tests.clips import TICKS, CodedClip
from tests.serving import until

from streamlift.config import IceConfig
from streamlift.frames import Codec, EncodedFrame, Rendition
from streamlift.media.outgoing.whep_viewer import Packetized, Packetizer
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.packet import MediaPacket
from streamlift.media.rtc.receiver import ReceiverTap
from streamlift.media.rtc.sender import PayloadTrack, SenderTap

__all__ = [
    "ClipPublisher",
    "Muxer",
    "PacketViewer",
    "ffmpeg_whip",
    "make_offer",
    "publishing",
    "watching",
]

SDP = {"Content-Type": "application/sdp"}
CONNECT_S = 10.0


@dataclass(slots=True, eq=False)
class Resource:
    """The HTTP side of a session."""

    http: httpx.AsyncClient
    location: str
    answer: str

    async def read(self) -> dict[str, object]:
        """`GET /api/v1/sessions/{id}`."""
        response = await self.http.get(f"/api/v1{self.location}")
        assert response.status_code == 200, response.text
        return dict(response.json())


class ClipPublisher:
    """Sends a clip's access units again and again at 25 fps; a keyframe request starts it anew.

    `change` may replace any access unit before it goes out: (number sent so far, unit) -> unit.
    """

    def __init__(self, clip: CodedClip, fps: float, change: Callable[[int, bytes], bytes]) -> None:
        self.clip = clip
        self.sent: list[bytes] = []
        self.keyframes_asked = 0
        self._fps = fps
        self._change = change
        self._packetizer = Packetizer()
        self._rendition = Rendition(clip.codec, 0, "")
        self._units = self._again()
        self._start_s: float | None = None
        self.track = PayloadTrack("video", self._next)
        self.peer: Peer | None = None
        self.ended = False

    def vanish(self) -> None:
        """Be gone without a word, as a process that is killed."""
        self.ended = True
        assert self.peer is not None
        transceiver: Any = self.peer.connection.getTransceivers()[0]
        for protocol in transceiver.receiver.transport.transport._connection._protocols:
            protocol.transport.abort()

    def _again(self) -> Iterator[bytes]:
        while True:
            yield from self.clip.units

    def restart(self) -> None:
        """What a sender does when asked for a keyframe."""
        self.keyframes_asked += 1
        self._units = self._again()

    async def _next(self) -> Packetized:
        loop = asyncio.get_running_loop()
        if self._start_s is None:
            self._start_s = loop.time()
        number = len(self.sent)
        await asyncio.sleep(self._start_s + number / self._fps - loop.time())
        if self.ended:
            raise MediaStreamError
        unit = self._change(number, next(self._units))
        self.sent.append(unit)
        pts = round(number * 25 / self._fps * TICKS)
        frame = EncodedFrame(pts, self.clip.size, self._rendition, False, unit, 0.0)
        return self._packetizer.packetize(frame)


@asynccontextmanager
async def publishing(
    url: str,
    clip: CodedClip,
    *,
    fps: float = 25.0,
    token: str | None = None,
    change: Callable[[int, bytes], bytes] = lambda _, unit: unit,
    delete: bool = True,
) -> AsyncIterator[ClipPublisher]:
    """Publish a clip until the block ends; connected when it begins."""
    publisher = ClipPublisher(clip, fps, change)
    peer = publisher.peer = Peer(IceConfig())
    transceiver = peer.add("video", "sendonly", publisher.track)
    peer.prefer(transceiver, [clip.codec])
    SenderTap(transceiver.sender, publisher.restart)
    try:
        async with _session(url, peer, token, delete=delete):
            yield publisher
    finally:
        publisher.ended = True
        await peer.close()


@dataclass(slots=True, eq=False)
class PacketViewer:
    """Collects access units without decoding them: (RTP timestamp, bytes), in order."""

    resource: Resource
    peer: Peer
    tap: ReceiverTap
    units: list[tuple[int, bytes]] = field(default_factory=list)
    packets: list[MediaPacket] = field(default_factory=list)
    codec: Codec | None = None

    async def wait_units(self, count: int, timeout_s: float = 10.0) -> None:
        """Wait until so many whole access units have come."""
        await until(lambda: len(self.units) >= count, f"{count} access units", timeout_s=timeout_s)

    async def wait_more(self, count: int, timeout_s: float = 10.0) -> None:
        await self.wait_units(len(self.units) + count, timeout_s)

    async def request_keyframe(self) -> None:
        await self.tap.send_pli(self.packets[-1].ssrc)

    def take(self, packet: MediaPacket) -> None:
        """Loopback neither loses nor reorders, so the marker bit is all that is needed."""
        self.codec = self.tap.codec_of(packet.payload_type)
        self.packets.append(packet)
        if packet.marker:
            data = b"".join(p.data for p in self.packets if p.timestamp == packet.timestamp)
            self.units.append((packet.timestamp, data))
            del self.packets[:-1]


@asynccontextmanager
async def watching(
    url: str,
    *,
    codecs: Sequence[Codec] = (Codec.H264, Codec.VP8),
    token: str | None = None,
    delete: bool = True,
) -> AsyncIterator[PacketViewer]:
    """Watch by WHEP until the block ends; connected when it begins."""
    peer = Peer(IceConfig())
    transceiver = peer.add("video", "recvonly")
    peer.prefer(transceiver, codecs)
    early: list[MediaPacket] = []
    sink: list[Callable[[MediaPacket], None]] = [early.append]
    tap = ReceiverTap(transceiver.receiver, lambda packet: sink[0](packet))
    try:
        async with _session(url, peer, token, delete=delete) as resource:
            viewer = PacketViewer(resource, peer, tap)
            for packet in early:
                viewer.take(packet)
            sink[0] = viewer.take
            yield viewer
    finally:
        await peer.close()


async def make_offer(kind: str = "view", codecs: Sequence[Codec] = (Codec.H264,)) -> str:
    """An offer that nobody will connect with."""
    peer = Peer(IceConfig())
    try:
        direction = "recvonly" if kind == "view" else "sendonly"
        peer.prefer(peer.add("video", direction), codecs)
        return await peer.offer()
    finally:
        await peer.close()


@asynccontextmanager
async def _session(
    url: str, peer: Peer, token: str | None, *, delete: bool
) -> AsyncIterator[Resource]:
    address = httpx.URL(url)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(
        base_url=str(address.copy_with(path="/", query=None)),
        headers=headers,
        trust_env=False,
        timeout=15,
    ) as http:
        response = await http.post(url, content=await peer.offer(), headers=SDP)
        assert response.status_code == 201, response.text
        resource = Resource(http, response.headers["location"], response.text)
        await peer.accept(response.text)
        async with asyncio.timeout(CONNECT_S):
            assert await peer.wait_connected(), "no connection came about"
        yield resource
        if delete:
            # The server may have ended the session already.
            assert (await http.delete(resource.location)).status_code in (200, 404)


# ---- FFmpeg's WHIP muxer, in a process of its own ----


@dataclass(slots=True, eq=False)
class Muxer:
    """A child process that publishes; `frames` is known after it has ended."""

    process: asyncio.subprocess.Process
    frames: int | None = None

    async def end(self, timeout_s: float = 10.0) -> int:
        """Let it finish as FFmpeg does (DELETE included); returns how many frames it sent."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await self.wait(timeout_s)

    async def wait(self, timeout_s: float = 30.0) -> int:
        """Wait until it has sent all its frames; returns how many."""
        if self.frames is None:
            assert self.process.stdout is not None
            async with asyncio.timeout(timeout_s):
                output = await self.process.stdout.read()
                status = await self.process.wait()
            assert status == 0, f"FFmpeg's WHIP muxer ended with status {status}"
            self.frames = int(json.loads(output)["frames"])
        return self.frames

    async def kill(self) -> None:
        """Vanish without a word, as a publisher that lost its power."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def ffmpeg_whip(
    url: str,
    certificate: tuple[Path, Path],
    *,
    seconds: float = 60.0,
    size: str = "512x512",
    token: str | None = None,
    dtls_active: bool = False,
    sound: bool = False,
) -> AsyncIterator[Muxer]:
    """Publish stamped pictures at 25 fps with FFmpeg's muxer, until the block ends."""
    options = {
        "handshake_timeout": "8000",
        "cert_file": str(certificate[0]),
        "key_file": str(certificate[1]),
    }
    if token:
        options["authorization"] = token
    if dtls_active:
        options["whip_flags"] = "dtls_active"
    order = {"url": url, "options": options, "seconds": seconds, "size": size, "sound": sound}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONASYNCIODEBUG"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    process = await asyncio.create_subprocess_exec(
        *bound(
            sys.executable,
            str(Path(__file__).parent / "live" / "ffmpeg_whip.py"),
            json.dumps(order),
        ),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        yield Muxer(process)
    finally:
        if process.returncode is None:
            process.kill()
        # Its exit is awaited through the pipe's end, so that the transport is closed as well.
        await process.communicate()
