"""A WHEP gateway like livepeer/go-livepeer's, and daydream.live's status call, with switches."""

from __future__ import annotations

import asyncio
import re
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import uvicorn
from aiortc.mediastreams import MediaStreamError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from tests.clips import TICKS, CodedClip, coded_clip
from tests.serving import WebServer, until

from streamlift.config import IceConfig
from streamlift.frames import EncodedFrame, Rendition
from streamlift.media.outgoing.whep_viewer import Packetized, Packetizer
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.sdp import Role, read_offer
from streamlift.media.rtc.sender import PayloadTrack, SenderTap


@dataclass(slots=True)
class Switches:
    """What the gateway does wrong or differently.

    `refusals`: statuses to answer with before the first 201. `location`: the header, with {id}.
    `reject_audio`: answer m=audio 0, which aiortc cannot read. `jumps`: pts to add (90 kHz) from
    that frame on. `sizes`: clips of other sizes from that frame on. `silent_after`: no frame after.
    """

    refusals: deque[int] = field(default_factory=deque)
    status: int = 201
    location: str | None = "/session/{id}"
    link: str | None = None
    reject_audio: bool = False
    jumps: dict[int, int] = field(default_factory=dict)
    clips: dict[int, CodedClip] = field(default_factory=dict)
    silent_after: int | None = None
    token: str | None = None
    playback: str | None = None
    body: str | None = None


@dataclass(slots=True)
class Asked:
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: str
    offered_audio: bool = False


class Gateway:
    """`app` is the ASGI application. Keyframes come every second whatever is asked, as there."""

    def __init__(self, switches: Switches | None = None) -> None:
        self.switches = switches or Switches()
        self.asked: list[Asked] = []
        self.sessions: dict[str, Peer] = {}
        self.frames_sent = 0
        self.app = Starlette(
            routes=[
                Route("/whep/{name}", self._whep, methods=["POST"]),
                Route("/session/{id}", self._delete, methods=["DELETE"]),
                Route("/v1/streams/{id}/status", self._status, methods=["GET"]),
            ]
        )

    def requests(self, method: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == method]

    async def aclose(self) -> None:
        """End all sessions, as a gateway does when its orchestrator is gone."""
        # Who is hung up on may be back before the last one is closed.
        peers, self.sessions = list(self.sessions.values()), {}
        for peer in peers:
            await peer.close()

    async def _note(self, request: Request) -> Asked:
        body = (await request.body()).decode()
        asked = Asked(request.method, request.url.path, dict(request.headers), body)
        asked.offered_audio = "m=audio" in body
        self.asked.append(asked)
        return asked

    async def _whep(self, request: Request) -> Response:
        asked = await self._note(request)
        switches = self.switches
        if request.headers.get("content-type") != "application/sdp":
            return Response(status_code=415)
        if switches.token and asked.headers.get("authorization") != f"Bearer {switches.token}":
            return Response(status_code=401)
        if switches.refusals:
            return Response(status_code=switches.refusals.popleft())
        if "a=candidate:" not in asked.body:
            return Response("incomplete offer", status_code=400)
        number = str(len(self.sessions))
        answer = await self._answer(number, asked)
        headers = {}
        if switches.location:
            headers["Location"] = switches.location.format(id=number)
        if switches.link:
            headers["Link"] = switches.link
        return Response(
            switches.body or answer, switches.status, headers, media_type="application/sdp"
        )

    async def _answer(self, number: str, asked: Asked) -> str:
        peer = self.sessions[number] = Peer(IceConfig())
        offer = read_offer(asked.body, Role.VIEW)
        for media in offer.media:
            if media.kind == "audio":
                peer.add("audio", "inactive")
            else:
                track = PayloadTrack("video", _Pictures(self).next)
                transceiver = peer.add("video", "sendonly", track)
                peer.prefer(transceiver, offer.video_codecs[:1])
                SenderTap(transceiver.sender, lambda: None)  # no reaction to PLI
        answer = await peer.answer(offer)
        if self.switches.reject_audio:
            answer = re.sub(r"m=audio \d+", "m=audio 0", answer)
        return answer

    async def _delete(self, request: Request) -> Response:
        await self._note(request)
        return Response(status_code=200)

    async def _status(self, request: Request) -> Response:
        asked = await self._note(request)
        if asked.headers.get("authorization") != f"Bearer {self.switches.token}":
            return JSONResponse({"success": False}, status_code=401)
        gateway = {"whep_url": self.switches.playback, "error": None}
        return JSONResponse({"success": True, "data": {"gateway_status": gateway}})


class _Pictures:
    """A stamped clip again and again at 25 fps, as the switches have it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._packetizer = Packetizer()
        self._clip = coded_clip(gop=25)
        self._unit = 0
        self._shift = 0
        self._number = 0
        self._start_s: float | None = None

    async def next(self) -> Packetized:
        switches, loop = self._gateway.switches, asyncio.get_running_loop()
        if self._start_s is None:
            self._start_s = loop.time()
        if switches.silent_after is not None and self._number >= switches.silent_after:
            await asyncio.Event().wait()
        await asyncio.sleep(self._start_s + self._number / 25 - loop.time())
        if not self._gateway.sessions:
            raise MediaStreamError
        self._shift += switches.jumps.get(self._number, 0)
        if self._number in switches.clips:
            self._clip, self._unit = switches.clips[self._number], 0
        unit = self._clip.units[self._unit % len(self._clip.units)]
        pts = self._number * TICKS + self._shift
        self._unit += 1
        self._number += 1
        self._gateway.frames_sent += 1
        rendition = Rendition(self._clip.codec, 0, "")
        frame = EncodedFrame(pts, self._clip.size, rendition, False, unit, 0.0)
        return replace(self._packetizer.packetize(frame), pts=pts)


def redirector(to: str, status: int, asked: list[Asked]) -> Starlette:
    """Sends everything to another address, and notes what it was asked."""

    async def send_on(request: Request) -> Response:
        body = (await request.body()).decode()
        asked.append(Asked(request.method, request.url.path, dict(request.headers), body))
        return RedirectResponse(to + request.url.path, status)

    return Starlette(routes=[Route("/{path:path}", send_on, methods=["POST", "GET", "DELETE"])])


@asynccontextmanager
async def listening(app: ASGIApp, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve an app on a free port of this loop; yields its base URL."""
    with socket.create_server((host, 0)) as listener:
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        web = WebServer(config)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(web.serve(sockets=[listener]))
            await until(lambda: web.started, "the fake server to start")
            try:
                yield f"http://{host}:{port}"
            finally:
                web.should_exit = True
                await asyncio.wait([running], timeout=10)


@asynccontextmanager
async def gateway(switches: Switches | None = None) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway and its WHEP address."""
    served = Gateway(switches)
    try:
        async with listening(served.app) as url:
            yield served, f"{url}/whep/live"
            await served.aclose()
    finally:
        await served.aclose()
