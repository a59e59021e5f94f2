"""Outputs of a stream beside its viewers: pushed to other servers by WHIP, recorded to files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, SecretStr

from streamlift.api.auth import Scope, authorise
from streamlift.api.door import service_of
from streamlift.api.signalling import StreamName, has_sound, ice_now
from streamlift.api.sources import DiscreetRoute
from streamlift.errors import NotReady, StreamliftError
from streamlift.frames import Codec
from streamlift.media.files.record import Recorder
from streamlift.media.remote.push import WhipPush
from streamlift.media.rtc.audio import AudioFeed
from streamlift.routing import Cursor, EventKind, StreamState, supervise
from streamlift.service import Service
from streamlift.service.outputs import Output

__all__ = ["attend_outputs", "outputs"]

logger = logging.getLogger(__name__)

outputs = APIRouter(prefix="/api/v1", tags=["outputs"], route_class=DiscreetRoute)

TheService = Annotated[Service, Depends(service_of)]


class NewOutput(BaseModel):
    """Another server's WHIP address; the token goes to it as a bearer token."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["whip"]
    url: str
    token: SecretStr | None = None


@outputs.post("/streams/{stream}/outputs", status_code=201)
async def add_output(
    stream: StreamName, body: NewOutput, request: Request, service: TheService
) -> JSONResponse:
    """Publish the upscaled stream elsewhere too; tried again and again until it is deleted."""
    authorise(request, service.config.auth, Scope.CONTROL)
    if service.draining:
        raise NotReady("the service is shutting down", found="draining", expected="ready")
    service.router.stream(stream)
    token = None if body.token is None else body.token.get_secret_value()
    output = _push(service, stream, body.url, token)
    where = f"/api/v1/streams/{stream}/outputs/{output.id}"
    return JSONResponse(_output_json(output), status_code=201, headers={"Location": where})


@outputs.get("/streams/{stream}/outputs")
async def list_outputs(stream: StreamName, request: Request, service: TheService) -> dict[str, Any]:
    """Where a stream goes beside its viewers, and how that goes; never a token."""
    authorise(request, service.config.auth, Scope.CONTROL)
    service.router.stream(stream)
    return {"outputs": [_output_json(output) for output in service.outputs.of(stream)]}


@outputs.get("/streams/{stream}/outputs/{output}")
async def read_output(
    stream: StreamName, output: str, request: Request, service: TheService
) -> dict[str, Any]:
    """One output."""
    authorise(request, service.config.auth, Scope.CONTROL)
    return _output_json(service.outputs.get(stream, output))


@outputs.delete("/streams/{stream}/outputs/{output}", status_code=204)
async def end_output(
    stream: StreamName, output: str, request: Request, service: TheService
) -> Response:
    """End an output: a push deletes its session at the other server, a recording is finished."""
    authorise(request, service.config.auth, Scope.CONTROL)
    service.outputs.end(service.outputs.get(stream, output))
    return Response(status_code=204)


async def attend_outputs(service: Service) -> None:
    """Start the configured pushes and recordings of every stream that comes; never ends."""
    with service.events.subscribe() as events:
        async for event in events:
            if event.kind is EventKind.STREAM_STATE and event.after == StreamState.LIVE:
                try:
                    _start_configured(service, event.stream)
                except StreamliftError as error:  # this stream has its fill; others have not
                    logger.warning("stream %s: an output was not started: %s", event.stream, error)
                    service.events.add(EventKind.FAULT, stream=event.stream, reason=str(error))


def _start_configured(service: Service, stream: str) -> None:
    running = [o.work for o in service.outputs.of(stream) if not o.over]
    pushed = {work.url for work in running if isinstance(work, WhipPush)}
    for push in service.config.outputs.push:
        if push.stream == stream and push.url not in pushed:
            _push(service, stream, push.url, push.token)
    if service.outputs.saves and not any(isinstance(work, Recorder) for work in running):
        _start(service, service.outputs.record(stream))


def _push(service: Service, stream: str, url: str, token: str | None) -> Output:
    output = service.outputs.push(
        stream,
        url,
        token,
        ice=ice_now(service),
        retried=lambda: service.metrics.count("outputs_retries_total", type="whip"),
    )
    return _start(service, output)


def _start(service: Service, output: Output) -> Output:
    work = supervise(f"output of stream {output.stream}", _run(service, output))
    output.task = service.tasks.create_task(work)
    return output


async def _run(service: Service, output: Output) -> None:
    try:
        await _work(service, output)
    except StreamliftError as error:
        output.error = str(error)
        if isinstance(output.work, Recorder):
            service.metrics.count("recording_errors_total")
        service.events.add(EventKind.FAULT, stream=output.stream, reason=str(error))
    finally:
        output.ended = True
        if not output.error:
            service.outputs.remove(output)


async def _work(service: Service, output: Output) -> None:
    stream, work = output.stream, output.work
    if isinstance(work, Recorder):
        await work.run(lambda: service.router.watch(stream))
        return

    def watch() -> AbstractContextManager[Cursor]:
        return service.router.watch(stream, codec=Codec.H264)

    await work.run(watch, lambda: _listening(service, stream), lambda: has_sound(service, stream))


@contextmanager
def _listening(service: Service, stream: str) -> Iterator[AudioFeed]:
    with service.audio.use(stream) as relay, relay.listen() as sound:
        yield sound


def _output_json(output: Output) -> dict[str, Any]:
    work = output.work
    if isinstance(work, WhipPush):
        return {
            "id": output.id,
            "type": "whip",
            "url": work.shown_url,
            "state": work.state,
            "reason": work.reason,
            "connections": work.connections,
            "bytes_sent": work.bytes_sent,
        }
    return {
        "id": output.id,
        "type": "file",
        "files": [path.name for path in work.paths],
        "state": output.state,
        "reason": output.error,
        "bytes_written": work.bytes_written,
    }
