"""The control API: read and close streams, read backends, take snapshots."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from streamlift.api.auth import Scope, authorise
from streamlift.api.door import service_of
from streamlift.api.problems import Problem
from streamlift.api.signalling import StreamName
from streamlift.codec import encoded_bitrate_bps
from streamlift.codec.still import picture_as_jpeg
from streamlift.config import NAME_PATTERN
from streamlift.frames import BackendInfo, Size, Stabilise
from streamlift.routing import Idle, Policy, StreamSnapshot, SwitchMode, View
from streamlift.service import Service

__all__ = ["backend_json", "control", "stream_json"]

SNAPSHOT_S = 3.0


class Switch(BaseModel):
    """Exactly one of `backend` and `policy`."""

    model_config = ConfigDict(extra="forbid")

    backend: str | None = Field(None, pattern=f"^{NAME_PATTERN}$")
    policy: Literal["auto", "quality", "speed"] | None = None
    mode: SwitchMode | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.backend is None) == (self.policy is None):
            raise ValueError("give exactly one of backend and policy")
        return self


class StreamChange(BaseModel):
    """What may be changed of a running stream; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    bitrate_bps: int | None = Field(None, ge=100_000, le=50_000_000)
    stabilise: Stabilise | None = None
    idle: Idle | None = None


control = APIRouter(prefix="/api/v1", tags=["control"])

TheService = Annotated[Service, Depends(service_of)]


@control.get("/streams")
async def list_streams(request: Request, service: TheService) -> dict[str, Any]:
    """All open streams."""
    authorise(request, service.config.auth, Scope.VIEW, Scope.CONTROL)
    return {"streams": [stream_json(s) for s in service.router.streams()]}


@control.get("/streams/{stream}")
async def read_stream(stream: StreamName, request: Request, service: TheService) -> dict[str, Any]:
    """One stream: state, rates, latency by stage, frame counts."""
    authorise(request, service.config.auth, Scope.VIEW, Scope.CONTROL)
    return stream_json(service.router.stream(stream).snapshot())


@control.patch("/streams/{stream}")
async def change_stream(
    stream: StreamName, change: StreamChange, request: Request, service: TheService
) -> dict[str, Any]:
    """Change the bit rate, the stabiliser, or what the stream does without viewers."""
    authorise(request, service.config.auth, Scope.CONTROL)
    found = service.router.stream(stream)
    found.change(bitrate_bps=change.bitrate_bps, stabilise=change.stabilise, idle=change.idle)
    return stream_json(found.snapshot())


@control.put("/streams/{stream}/backend", status_code=202)
async def switch_backend(
    stream: StreamName, switch: Switch, request: Request, service: TheService
) -> dict[str, Any]:
    """Move a stream to another backend, or let a policy choose; viewers stay connected.

    202 at once; the event `switched` tells when it is done and what gap the viewers saw.
    """
    authorise(request, service.config.auth, Scope.CONTROL)
    snapshot = await service.router.switch(
        stream,
        switch.backend,
        policy=None if switch.policy is None else Policy(switch.policy),
        mode=switch.mode,
    )
    return stream_json(snapshot)


@control.delete("/streams/{stream}", status_code=204)
async def close_stream(stream: StreamName, request: Request, service: TheService) -> Response:
    """End a stream with its publisher and all its viewers."""
    authorise(request, service.config.auth, Scope.CONTROL)
    await service.router.close(stream)
    return Response(status_code=204)


@control.get("/streams/{stream}/snapshot.jpg", response_class=Response)
async def snapshot(
    stream: StreamName,
    request: Request,
    service: TheService,
    view: Annotated[View, Query()] = View.UPSCALED,
) -> Response:
    """The newest picture as JPEG."""
    authorise(request, service.config.auth, Scope.VIEW, Scope.CONTROL)
    try:
        async with asyncio.timeout(SNAPSHOT_S):
            with service.router.watch(stream, view) as frames:
                # A viewer's first frame is always a keyframe.
                keyframe = await anext(frames)
    except (TimeoutError, StopAsyncIteration):
        raise Problem(
            503,
            "no-picture",
            "No picture",
            f"no keyframe of stream {stream!r} came within {SNAPSHOT_S:g} s",
            headers={"Retry-After": "2"},
        ) from None
    jpeg = await asyncio.to_thread(picture_as_jpeg, keyframe)
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


@control.get("/backends")
async def list_backends(request: Request, service: TheService) -> dict[str, Any]:
    """The configured backends, with what they can do now and why not."""
    authorise(request, service.config.auth, Scope.VIEW, Scope.CONTROL)
    return {"backends": [backend_json(b) for b in service.router.backends()]}


def stream_json(stream: StreamSnapshot) -> dict[str, Any]:
    """The Stream object of the API."""
    publisher, output = stream.publisher, stream.output
    return {
        "name": stream.name,
        "state": stream.state,
        "reason": stream.reason,
        "degraded": stream.degraded,
        "backend": stream.backend,
        "policy": stream.policy,
        "publisher": publisher
        and {
            "codec": publisher.codec,
            "size": _size(publisher.size),
            "fps": _rounded(publisher.fps),
        },
        "output": {
            "size": _size(output.size),
            "fps": _rounded(output.fps),
            "bitrate_bps": None if output.bitrate_bps is None else int(output.bitrate_bps),
            "renditions": [
                {"codec": r.codec, "bitrate_bps": encoded_bitrate_bps(r), "profile": r.profile}
                for r in output.renditions
            ],
        },
        "latency_ms": {
            stage: {"p50": _rounded(q.p50), "p95": _rounded(q.p95)}
            for stage, q in stream.latency_ms.items()
        },
        "frames": {
            "received": stream.frames.received,
            "decoded": stream.frames.decoded,
            "upscaled": stream.frames.upscaled,
            "encoded": stream.frames.encoded,
            "dropped": dict(stream.frames.dropped),
        },
        "viewers": stream.viewers,
    }


def backend_json(backend: BackendInfo) -> dict[str, Any]:
    """The Backend object of the API."""
    return {
        "name": backend.name,
        "upscaler": backend.upscaler,
        "device": backend.device,
        "state": backend.state,
        "reason": backend.reason,
        "fps": _rounded(backend.fps),
        "slots": {"total": backend.slots.total, "used": backend.slots.used},
    }


def _size(size: Size | None) -> list[int] | None:
    return None if size is None else [size.width, size.height]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
