"""Streams that the service fetches itself: from a WHEP address, daydream.live, Scope, or a URL."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from streamlift.api import answers
from streamlift.api.door import TheService
from streamlift.api.forwarded import outside
from streamlift.api.rights import GuardedRoute, Scope, TheCaller, must_allow, needs
from streamlift.api.shapes import (
    DaydreamBody,
    NewStream,
    SourceChange,
    StreamName,
    UrlBody,
    WhepBody,
    prompts_json,
    source_json,
    stream_json,
)
from streamlift.service import Pulls, Source

__all__ = ["DiscreetRoute", "pulls"]


class DiscreetRoute(GuardedRoute):
    """Errors in a body are told without repeating it: it may hold a token."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_discreetly(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise RequestValidationError(
                    [{**e, "input": None, "ctx": None} for e in error.errors()]
                ) from None

        return handle_discreetly


pulls = APIRouter(prefix="/api/v1", tags=["sources"], route_class=DiscreetRoute)

_CONTROL = [needs(Scope.CONTROL)]


@pulls.post("/streams", status_code=201, response_model=answers.Stream, dependencies=_CONTROL)
async def pull_stream(
    body: NewStream, request: Request, service: TheService, caller: TheCaller
) -> JSONResponse:
    """Fetch a stream from elsewhere; returns the Stream. It tries for ever; DELETE ends it."""
    must_allow(caller, (Scope.CONTROL,), body.name)
    await service.pull(body.name, _source(service.pulls, body))
    return JSONResponse(
        stream_json(service.router.stream(body.name).snapshot()),
        status_code=201,
        headers={"Location": outside(request, f"/api/v1/streams/{body.name}")},
    )


@pulls.get("/streams/{stream}/source", dependencies=_CONTROL)
async def read_source(stream: StreamName, service: TheService) -> answers.Source:
    """Where a stream is fetched from and how that goes; never the token."""
    return source_json(service.pulls.get(stream))


@pulls.put("/streams/{stream}/source", status_code=202, dependencies=_CONTROL)
async def change_source(
    stream: StreamName, body: SourceChange, service: TheService
) -> answers.Source:
    """Pass prompts and parameters on to Scope; they hold for later connections, too."""
    changes = dict(body.parameters)
    if body.prompts is not None:
        changes["prompts"] = prompts_json(body.prompts)
    return source_json(service.pulls.change(stream, changes))


def _source(pulls: Pulls, body: NewStream) -> Source:
    source = body.source
    if isinstance(source, WhepBody):
        token = None if source.token is None else source.token.get_secret_value()
        return pulls.whep(body.name, source.url, token)
    if isinstance(source, DaydreamBody):
        return pulls.daydream(body.name, source.stream_id)
    if isinstance(source, UrlBody):
        return pulls.url(body.name, source.url, loop=source.loop)
    parameters = dict(source.parameters)
    if source.prompts:
        parameters["prompts"] = prompts_json(source.prompts)
    return pulls.scope(
        body.name,
        source.url,
        source.pipeline,
        load_params=source.load_params,
        parameters=parameters,
    )
