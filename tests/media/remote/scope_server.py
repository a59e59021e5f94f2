"""A Scope server as far as a puller sees it (daydreamlive/scope 0.2.4), with switches."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiortc import RTCDataChannel, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.clips import coded_clip
from tests.media.remote.gateway import listening

from streamlift.config import IceConfig
from streamlift.frames import Codec, EncodedFrame, Rendition
from streamlift.media.outgoing.whep_viewer import Packetized, Packetizer
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.sender import PayloadTrack, SenderTap

FPS = 16
PTS_STEP = 90_000 // FPS


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True)
class Switches:
    """`statuses`: what pipeline/status says, one after the other; the last one stays.

    `refusals`: statuses that the offer is answered with first. `may_answer`: what it waits for.
    """

    statuses: deque[dict[str, Any]] = field(default_factory=deque)
    refusals: deque[int] = field(default_factory=deque)
    ice_servers: list[dict[str, Any]] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=_set)


class ScopeServer:
    """`loads`, `offers` and `messages` are what came in; `stop` tells all clients it is over."""

    def __init__(self, switches: Switches | None = None) -> None:
        self.switches = switches or Switches()
        self.loads: list[dict[str, Any]] = []
        self.offers: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.peers: dict[str, Peer] = {}
        self._channels: list[RTCDataChannel] = []
        self._loaded: str | None = None
        self.app = Starlette(
            routes=[
                Route("/health", self._health),
                Route("/api/v1/pipeline/load", self._load, methods=["POST"]),
                Route("/api/v1/pipeline/status", self._status),
                Route("/api/v1/webrtc/ice-servers", self._ice),
                Route("/api/v1/webrtc/offer", self._offer, methods=["POST"]),
                Route("/api/v1/webrtc/offer/{id}", self._delete, methods=["DELETE"]),
            ]
        )

    def stop(self, message: str) -> None:
        for channel in self._channels:
            channel.send(json.dumps({"type": "stream_stopped", "error_message": message}))

    async def aclose(self) -> None:
        peers, self.peers = list(self.peers.values()), {}
        for peer in peers:
            await peer.close()

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "healthy", "version": "0.2.4"})

    async def _load(self, request: Request) -> Response:
        order = await request.json()
        self.loads.append(order)
        self._loaded = order["pipelines"][0]["pipeline_id"]
        return JSONResponse({"message": "loading"})

    async def _status(self, request: Request) -> Response:
        statuses = self.switches.statuses
        if statuses:
            return JSONResponse(statuses.popleft())
        state = "loaded" if self._loaded else "not_loaded"
        return JSONResponse({"status": state, "pipeline_id": self._loaded})

    async def _ice(self, request: Request) -> Response:
        return JSONResponse({"iceServers": self.switches.ice_servers})

    async def _offer(self, request: Request) -> Response:
        offer = await request.json()
        self.offers.append(offer)
        await self.switches.may_answer.wait()
        if self.switches.refusals:
            status = self.switches.refusals.popleft()
            return JSONResponse({"detail": f"told to answer {status}"}, status_code=status)
        session = f"session-{len(self.offers)}"
        peer = self.peers[session] = Peer(IceConfig())
        peer.connection.on("datachannel", self._take_channel)
        graph = offer["initialParameters"].get("graph")
        track = PayloadTrack("video", _Generation(self, silent=graph is None).next)
        transceiver = peer.add("video", "sendonly", track)
        peer.prefer(transceiver, [Codec.H264])
        SenderTap(transceiver.sender, lambda: None)
        connection = peer.connection
        await connection.setRemoteDescription(RTCSessionDescription(offer["sdp"], "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        answer = connection.localDescription.sdp
        return JSONResponse({"sdp": answer, "type": "answer", "sessionId": session})

    def _take_channel(self, channel: RTCDataChannel) -> None:
        self._channels.append(channel)
        channel.on("message", lambda text: self.messages.append(json.loads(text)))

    async def _delete(self, request: Request) -> Response:
        self.deleted.append(request.path_params["id"])
        return Response(status_code=204)


class _Generation:
    """A stamped clip at 16 fps."""

    def __init__(self, server: ScopeServer, *, silent: bool) -> None:
        self._server = server
        self._silent = silent
        self._packetizer = Packetizer()
        self._clip = coded_clip(gop=25)
        self._number = 0
        self._start_s: float | None = None

    async def next(self) -> Packetized:
        loop = asyncio.get_running_loop()
        if self._silent:
            await asyncio.Event().wait()
        if self._start_s is None:
            self._start_s = loop.time()
        await asyncio.sleep(self._start_s + self._number / FPS - loop.time())
        if not self._server.peers:
            raise MediaStreamError
        unit = self._clip.units[self._number % len(self._clip.units)]
        rendition = Rendition(self._clip.codec, 0, "")
        frame = EncodedFrame(self._number * PTS_STEP, self._clip.size, rendition, False, unit, 0.0)
        self._number += 1
        return self._packetizer.packetize(frame)


@asynccontextmanager
async def scope_server(switches: Switches | None = None) -> AsyncIterator[tuple[ScopeServer, str]]:
    """A server and its base URL."""
    server = ScopeServer(switches)
    try:
        async with listening(server.app) as url:
            yield server, url
            await server.aclose()
    finally:
        await server.aclose()
