"""Streams and backends: read, change, switch, close, and take a still picture."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated

from fastapi import APIRouter, Query, Response

from streamlift.api import answers
from streamlift.api.door import TheService
from streamlift.api.rights import GuardedRoute, Scope, TheCaller, needs
from streamlift.api.shapes import StreamChange, StreamName, Switch, backend_json, stream_json
from streamlift.config import BackendConfig
from streamlift.routing import Policy, View

__all__ = ["streams"]

streams = APIRouter(prefix="/api/v1", tags=["control"], route_class=GuardedRoute)

_READERS = (Scope.VIEW, Scope.CONTROL)
_READ = [needs(*_READERS)]
_CHANGE = [needs(Scope.CONTROL)]


@streams.get("/streams", dependencies=_READ)
async def list_streams(service: TheService, caller: TheCaller) -> answers.Streams:
    """All open streams that the token is for."""
    shown = (s for s in service.router.streams() if caller.grant.allows(_READERS, s.name))
    return {"streams": [stream_json(s) for s in shown]}


@streams.get("/streams/{stream}", dependencies=_READ)
async def read_stream(stream: StreamName, service: TheService) -> answers.Stream:
    """One stream: state, rates, latency by stage, frame counts."""
    return stream_json(service.router.stream(stream).snapshot())


@streams.patch("/streams/{stream}", dependencies=_CHANGE)
async def change_stream(
    stream: StreamName, change: StreamChange, service: TheService
) -> answers.Stream:
    """Change the bit rate, the stabiliser, the size, or what the stream does without viewers.

    Another size is shown from its first picture on; the event `switched` tells when that is.
    """
    found = service.router.stream(stream)
    found.change(change.change())
    return stream_json(found.snapshot())


@streams.put("/streams/{stream}/backend", status_code=202, dependencies=_CHANGE)
async def switch_backend(stream: StreamName, switch: Switch, service: TheService) -> answers.Stream:
    """Move a stream to another backend, or let a policy choose; viewers stay connected.

    202 at once; the event `switched` tells when it is done and what gap the viewers saw.
    """
    snapshot = await service.router.switch(
        stream,
        switch.backend,
        policy=None if switch.policy is None else Policy(switch.policy),
        mode=switch.mode,
    )
    return stream_json(snapshot)


@streams.delete("/streams/{stream}", status_code=204, dependencies=_CHANGE)
async def close_stream(stream: StreamName, service: TheService) -> Response:
    """End a stream with its publisher and all its viewers."""
    await service.router.close(stream)
    return Response(status_code=204)


@streams.get(
    "/streams/{stream}/snapshot.jpg",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}},
    dependencies=_READ,
)
async def snapshot(
    stream: StreamName, service: TheService, view: Annotated[View, Query()] = View.UPSCALED
) -> Response:
    """The newest picture as JPEG."""
    jpeg = await service.snapshots.jpeg(stream, view)
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


@streams.get("/backends", dependencies=_READ)
async def list_backends(service: TheService) -> answers.Backends:
    """The configured backends, with what they can do now and why not."""
    configured = {b.name: b for b in service.config.named_backends}
    return {
        "backends": [
            backend_json(b, service.downloads, _settings_of(configured.get(b.name)))
            for b in service.router.backends()
        ]
    }


def _settings_of(backend: BackendConfig | None) -> dict[str, str | None]:
    """What is configured of a backend, for people: its own settings and the stabiliser."""
    if backend is None:
        return {}
    # Of a path, the last part: where files lie on this machine is nothing for viewers.
    told = {
        key: PurePath(str(value)).name if key == "path" else str(value)
        for key, value in backend.settings.items()
    }
    return {"stabilise": backend.stabilise, **told}
