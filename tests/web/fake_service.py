"""A small working service for the page's tests: stamped loops by WHEP, a sink by WHIP, canned JSON.

Run as a program; it prints its port, and `PUT /fake` changes how it behaves.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import uvicorn
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.contrib.media import MediaBlackhole
from av.video.frame import PictureType
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

from streamlift.api.gate import PAGE_POLICY
from streamlift.stamp import draw_stamp

WEB = Path(__file__).parents[2] / "src" / "streamlift" / "web"
FPS = 25
LOOP = 100
GOP = 25
LOW = 256
CSP = PAGE_POLICY


@dataclasses.dataclass
class Behaviour:
    """What `PUT /fake` can set."""

    published: list[str] = dataclasses.field(default_factory=lambda: ["demo"])
    token: str | None = None
    control_token: str | None = None
    state: str = "live"
    reason: str = ""
    missing: list[str] = dataclasses.field(default_factory=list)
    whep_status: int = 0
    deaf: bool = False
    backend: str = "bicubic"
    policy: str = "auto"
    compared: str = "live"
    compare_status: int = 0
    stuck: list[str] = dataclasses.field(default_factory=list)
    """Views that send nothing any more."""


class Loop:
    """The same scene coded twice: as it is, and twice as large."""

    def __init__(self) -> None:
        scene = [_draw(number) for number in range(LOOP)]
        self.coded = {"source": _encode(scene, 1), "upscaled": _encode(scene, 2)}
        self.started_s = time.monotonic()

    def packet(self, view: str, index: int) -> av.Packet[Any]:
        packet: av.Packet[Any] = av.Packet(self.coded[view][index % LOOP])
        packet.pts = packet.dts = index * 90_000 // FPS
        packet.time_base = Fraction(1, 90_000)
        return packet


class LoopTrack(MediaStreamTrack):
    """Plays the loop in step with every other viewer, from a keyframe on."""

    kind = "video"

    def __init__(self, loop: Loop, view: str, stuck: Callable[[], bool]) -> None:
        super().__init__()
        self._scene, self._view, self._stuck = loop, view, stuck
        self._next = self._keyframe()
        self.sender: RTCRtpSender | None = None
        self.rtp_origin: int | None = None

    def _keyframe(self) -> int:
        now = (time.monotonic() - self._scene.started_s) * FPS
        return (int(now) // GOP + 1) * GOP

    async def recv(self) -> av.Packet[Any]:
        if self._stuck():
            while self._stuck():  # noqa: ASYNC110 - the test says when it goes on
                await asyncio.sleep(0.05)
            self._next = self._keyframe()
        if self.sender is not None and self.rtp_origin is None:
            sent = getattr(self.sender, "_RTCRtpSender__rtp_timestamp")  # noqa: B009, mangled
            if sent:
                self.rtp_origin = (sent - (self._next - 1) * 90_000 // FPS) % (1 << 32)
        due_s = self._scene.started_s + self._next / FPS
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        packet = self._scene.packet(self._view, self._next)
        self._next += 1
        return packet


class Fake:
    """All state of the fake service."""

    def __init__(self) -> None:
        self.behaviour = Behaviour()
        self.loop = Loop()
        self.sessions: dict[str, tuple[RTCPeerConnection, str, str, LoopTrack | None]] = {}
        self.log: list[str] = []
        self.comparisons: dict[LoopTrack, tuple[str, str]] = {}
        self.events: list[dict[str, object]] = []
        self.news = asyncio.Event()

    def emit(self, event: str, **data: object) -> None:
        blank = {"stream": "demo", "from": None, "to": None, "gap_ms": None, "reason": None}
        self.events.append(
            {**blank, "event": event, "seq": len(self.events) + 1, "time": time.time(), **data}
        )
        self.news.set()
        self.news = asyncio.Event()

    async def view(
        self, stream: str, view: str, offer: str, backend: str | None = None
    ) -> tuple[str, str]:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        name = view if backend is None else "backend"
        track = LoopTrack(self.loop, view, lambda: name in self.behaviour.stuck)
        if backend is not None:
            self.comparisons[track] = (stream, backend)
        video = peer.addTransceiver(track, direction="sendonly")
        track.sender = video.sender
        codecs = RTCRtpSender.getCapabilities("video").codecs
        video.setCodecPreferences([c for c in codecs if c.mimeType in ("video/H264", "video/rtx")])
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        for transceiver in peer.getTransceivers():
            if transceiver.kind == "audio":
                transceiver.direction = "inactive"
        return await self._answer(peer, "viewer", stream, track)

    async def publish(self, stream: str, offer: str) -> tuple[str, str]:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        sink = MediaBlackhole()
        peer.on("track", sink.addTrack)
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await sink.start()
        session = await self._answer(peer, "publisher", stream, None)
        if stream not in self.behaviour.published:
            self.behaviour.published.append(stream)
        return session

    async def _answer(
        self, peer: RTCPeerConnection, role: str, stream: str, track: LoopTrack | None
    ) -> tuple[str, str]:
        await peer.setLocalDescription(await peer.createAnswer())
        name = f"{role}-{len(self.log)}-{time.monotonic_ns():x}"
        self.sessions[name] = (peer, role, stream, track)
        self.log.append(f"POST {role} {stream}")
        if self.behaviour.deaf:  # as behind a firewall that lets HTTP through, and no UDP
            answer = peer.localDescription.sdp
            await peer.close()
            return name, answer
        return name, peer.localDescription.sdp

    async def end(self, name: str) -> bool:
        session = self.sessions.pop(name, None)
        if session is None:
            return False
        peer, role, stream, track = session
        if track in self.comparisons:
            del self.comparisons[track]
        self.log.append(f"DELETE {role} {stream}")
        await peer.close()
        return True

    def stream(self, name: str) -> dict[str, object]:
        wobble = (time.monotonic() * 7) % 3
        stages = {"decode": 2.1, "queue": 0.6 + wobble, "upscale": 14.2 + 2 * wobble}
        stages |= {"encode": 8.3, "send": 0.9}
        latency = {key: {"p50": value, "p95": value * 1.6} for key, value in stages.items()}
        total = sum(stages.values())
        return {
            "name": name,
            "state": self.behaviour.state,
            "reason": self.behaviour.reason,
            "degraded": False,
            "backend": self.behaviour.backend,
            "policy": self.behaviour.policy,
            "target": None,
            "publisher": {"codec": "h264", "size": [LOW, LOW], "fps": 25.0},
            "output": {
                "size": [2 * LOW, 2 * LOW],
                "fps": 25.0,
                "bitrate_bps": 5_800_000 + 100_000 * wobble,
                "renditions": ["h264"],
            },
            "latency_ms": {**latency, "total": {"p50": total, "p95": total * 1.5}},
            "frames": {
                "received": 1000,
                "decoded": 1000,
                "upscaled": 998,
                "encoded": 998,
                "dropped": {"stale": 2},
            },
            "viewers": sum(1 for _, role, at, _ in self.sessions.values() if at == name),
            "compare": [
                {"backend": backend, "state": self.behaviour.compared, "viewers": 1}
                | {"kept": 1.0, "size": [2 * LOW, 2 * LOW], "fps": 25.0}
                for stream, backend in self.comparisons.values()
                if stream == name
            ],
        }

    def backends(self) -> list[dict[str, object]]:
        rows = [
            ("bicubic", "bicubic", "cpu", "ready", None, 310.0),
            ("compact", "compact", "cpu", "ready", None, 31.0),
            ("realesrgan-x2", "realesrgan-x2", "cuda:0", "loading", "measuring", None),
            ("flashvsr", "flashvsr", "cuda:0", "unavailable", "no such device: H100", None),
        ]
        keys = ("name", "upscaler", "device", "state", "reason", "fps")
        words = "tier s with stabiliser: 24.5 CPU ms a frame of 36.0 on 2 cores"
        return [
            dict(zip(keys, row, strict=True))
            | {"slots": {"total": 4, "used": 1}}
            | {"plan": {"words": words} if row[0] == "compact" else None}
            for row in rows
        ]


def _draw(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    y, x = np.mgrid[0:LOW, 0:LOW]
    luma = 110 + 50 * np.sin((x + 3 * number) / 9) * np.cos((y - 2 * number) / 7)
    picture: np.ndarray[Any, np.dtype[np.uint8]] = luma.astype(np.uint8)
    at = (20 + number, LOW // 2 + int(30 * np.sin(number * 2 * np.pi / LOOP)))
    cv2.putText(picture, "streamlift", at, cv2.FONT_HERSHEY_SIMPLEX, 0.8, 230, 2, cv2.LINE_AA)
    draw_stamp(picture, number, number / FPS)
    return picture


def _encode(scene: list[np.ndarray[Any, np.dtype[np.uint8]]], scale: int) -> list[bytes]:
    context = av.CodecContext.create("libx264", "w")
    context.width = context.height = LOW * scale
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, FPS)
    context.thread_count = 1
    context.profile = "Baseline"
    context.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20"}
    coded = []
    for index, low in enumerate(scene):
        luma = cv2.resize(low, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        chroma = np.full((LOW * scale // 2, LOW * scale), 128, np.uint8)
        frame = av.VideoFrame.from_ndarray(np.vstack([luma, chroma]), format="yuv420p")
        frame.pts = index
        frame.pict_type = PictureType.I if index % GOP == 0 else PictureType.NONE
        coded.append(b"".join(bytes(packet) for packet in context.encode(frame)))
    return coded


def problem(status: int, detail: str, **headers: str) -> JSONResponse:
    body = {"type": "urn:streamlift:problem:fake", "title": "", "status": status, "detail": detail}
    return JSONResponse(
        body,
        status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        media_type="application/problem+json",
    )


def create_app() -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.fake = Fake()
        yield
        for name in list(app.state.fake.sessions):
            await app.state.fake.end(name)

    app = FastAPI(lifespan=lifespan)

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        fake: Fake = request.app.state.fake
        path = request.url.path
        behaviour = fake.behaviour
        if any(path.startswith(missing) for missing in behaviour.missing):
            return problem(404, "no such endpoint")
        guarded = path.startswith(("/api", "/whep", "/whip", "/sessions"))
        expected = f"Bearer {behaviour.token}"
        if guarded and behaviour.token and request.headers.get("authorization") != expected:
            return problem(401, "token missing or wrong", WWW_Authenticate="Bearer")
        control = behaviour.control_token and f"Bearer {behaviour.control_token}"
        if request.method == "PUT" and path.startswith("/api") and control:
            found = request.headers.get("authorization")
            if found != control:
                return problem(403 if found else 401, "this token does not allow to control")
        response: Response = await call_next(request)
        response.headers["Content-Security-Policy"] = CSP
        return response

    @app.put("/fake")
    async def behave(request: Request) -> dict[str, object]:
        fake: Fake = request.app.state.fake
        changes: dict[str, object] = await request.json()
        if changes.pop("hang_up", False):
            for name in list(fake.sessions):
                await fake.end(name)
        if changes.pop("reset", False):
            fake.behaviour = Behaviour()
            fake.log.clear()
        fake.behaviour = dataclasses.replace(fake.behaviour, **changes)  # type: ignore[arg-type]
        return {"log": fake.log, "sessions": len(fake.sessions)}

    @app.post("/whep/{stream}")
    async def whep(
        stream: str, request: Request, view: str = "upscaled", backend: str | None = None
    ) -> Response:
        fake: Fake = request.app.state.fake
        if stream not in fake.behaviour.published:
            return problem(409, f"nobody publishes {stream!r}", Retry_After="1")
        if fake.behaviour.whep_status:
            return problem(fake.behaviour.whep_status, "as told by the test", Retry_After="1")
        if backend is not None:
            bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
            shown = (request.headers.get("streamlift-control"), bearer)
            if fake.behaviour.control_token not in (None, *shown):
                return problem(403, "this token does not allow to control")
            if fake.behaviour.compare_status:
                detail = f"backend {backend} is full"
                return problem(fake.behaviour.compare_status, detail, Retry_After="2")
            fake.log.append(f"COMPARE {backend}")
        name, answer = await fake.view(stream, view, (await request.body()).decode(), backend)
        return _created(name, answer)

    @app.post("/whip/{stream}")
    async def whip(stream: str, request: Request) -> Response:
        fake: Fake = request.app.state.fake
        name, answer = await fake.publish(stream, (await request.body()).decode())
        return _created(name, answer)

    @app.delete("/sessions/{name}")
    async def end(name: str, request: Request) -> Response:
        return Response(status_code=200 if await request.app.state.fake.end(name) else 404)

    @app.get("/api/v1/sessions/{name}")
    async def session(name: str, request: Request) -> Response:
        found = request.app.state.fake.sessions.get(name)
        if found is None:
            return problem(404, "no such session")
        _, role, stream, track = found
        origin = track.rtp_origin if track else None
        return JSONResponse(
            {"id": name, "role": role, "stream": stream, "state": "connected", "codec": "h264"}
            | {"rtp_origin": origin, "bitrate_bps": 0, "packets_lost": 0}
        )

    @app.get("/api/v1/streams")
    async def streams(request: Request) -> dict[str, object]:
        fake: Fake = request.app.state.fake
        return {"streams": [fake.stream(name) for name in fake.behaviour.published]}

    @app.get("/api/v1/streams/{stream}/snapshot.jpg")
    async def snapshot(stream: str) -> Response:
        _, jpeg = cv2.imencode(".jpg", _draw(0))
        return Response(jpeg.tobytes(), media_type="image/jpeg")

    @app.put("/api/v1/streams/{stream}/backend")
    async def switch(stream: str, request: Request) -> JSONResponse:
        fake: Fake = request.app.state.fake
        wanted = await request.json()
        before = fake.behaviour.backend
        after = wanted.get("backend", before)
        fake.emit("switch.started", **{"from": before, "to": after})
        fake.behaviour.backend = after
        fake.behaviour.policy = wanted.get("policy", "fixed")
        fake.emit("switched", **{"from": before, "to": after, "gap_ms": 41.3})
        return JSONResponse(fake.stream(stream), 202)

    @app.get("/api/v1/backends")
    async def backends(request: Request) -> dict[str, object]:
        return {"backends": request.app.state.fake.backends()}

    @app.get("/api/v1/events")
    async def events(request: Request) -> StreamingResponse:
        return StreamingResponse(_events(request.app.state.fake), media_type="text/event-stream")

    @app.get("/")
    async def page(view: str = "") -> FileResponse:
        return FileResponse(WEB / ("clean.html" if view == "clean" else "index.html"))

    app.mount("/static", StaticFiles(directory=WEB))
    return app


async def _events(fake: Fake) -> AsyncIterator[str]:
    yield ": hello\n\n"
    sent = len(fake.events)
    while True:
        news = fake.news
        for event in fake.events[sent:]:
            yield f"id: {event['seq']}\nevent: {event['event']}\ndata: {json.dumps(event)}\n\n"
        sent = len(fake.events)
        await news.wait()


def _created(name: str, answer: str) -> Response:
    relay = '<turn:127.0.0.1:9?transport=tcp>; rel="ice-server"; username="u"; credential="c"'
    headers = {"Location": f"/sessions/{name}", "ETag": f'"{name}"', "Link": relay}
    return Response(answer, 201, headers=headers, media_type="application/sdp")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    listener = socket.create_server(("127.0.0.1", parser.parse_args().port))
    print(listener.getsockname()[1], flush=True)  # noqa: T201, the port is this program's answer
    config = uvicorn.Config(create_app(), log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
