"""Streams that the service fetches itself: from a WHEP address, daydream.live, or Scope."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from streamlift.api.auth import Scope, authorise
from streamlift.api.control import stream_json
from streamlift.api.door import service_of
from streamlift.api.problems import Problem
from streamlift.api.signalling import StreamName
from streamlift.config import NAME_PATTERN
from streamlift.errors import NotReady, StreamliftError
from streamlift.media.remote.pull import PullPublisher, PullState, Source
from streamlift.media.remote.pull_scope import ScopeSource
from streamlift.routing import supervise
from streamlift.service import Service
from streamlift.service.pulls import Pulls

__all__ = ["DiscreetRoute", "sources"]

_START_S = 5.0
_MOST_PARAMETERS = 100
_DEEPEST = 32

TheService = Annotated[Service, Depends(service_of)]


class DiscreetRoute(APIRoute):
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


sources = APIRouter(prefix="/api/v1", tags=["sources"], route_class=DiscreetRoute)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _must_be_json(parameters: dict[str, Any]) -> dict[str, Any]:
    """Python reads more than JSON has: NaN, half surrogate pairs. It could not be passed on."""
    _must_be_shallow(parameters, _DEEPEST)
    json.dumps(parameters, allow_nan=False, ensure_ascii=False).encode()
    return parameters


def _must_be_shallow(value: object, room: int) -> None:
    if room == 0:
        raise ValueError(f"nested deeper than {_DEEPEST} levels")
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in below:
        _must_be_shallow(part, room - 1)


Parameters = Annotated[
    dict[str, Any], Field(max_length=_MOST_PARAMETERS), AfterValidator(_must_be_json)
]
"""Scope's own, passed on as they are."""


class Prompt(_Body):
    """One of several prompts that are mixed by weight."""

    text: str = Field(max_length=10_000)
    weight: float = Field(default=1.0, allow_inf_nan=False)


class WhepBody(_Body):
    """Any WHEP server; the token goes to it as a bearer token."""

    kind: Literal["whep"]
    url: str
    token: SecretStr | None = None


class DaydreamBody(_Body):
    """A stream of daydream.live; the key is the operator's, from the environment."""

    kind: Literal["daydream"]
    stream_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")


class ScopeBody(_Body):
    """A Scope server; its pipeline is loaded and started anew."""

    kind: Literal["scope"]
    url: str = "http://localhost:8000"
    pipeline: str = Field(default="longlive", pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    prompts: list[Prompt | str] = Field(default_factory=list, max_length=20)
    load_params: Parameters = Field(default_factory=dict)
    parameters: Parameters = Field(default_factory=dict)


class NewStream(_Body):
    """A stream and where it comes from."""

    name: str = Field(pattern=f"^{NAME_PATTERN}$")
    source: Annotated[WhepBody | DaydreamBody | ScopeBody, Field(discriminator="kind")]


class SourceChange(_Body):
    """Prompts, or any of Scope's own parameters, such as `transition` or `reset_cache`."""

    prompts: list[Prompt | str] | None = Field(default=None, max_length=20)
    parameters: Parameters = Field(default_factory=dict)


@sources.post("/streams", status_code=201)
async def pull_stream(body: NewStream, request: Request, service: TheService) -> JSONResponse:
    """Fetch a stream from elsewhere; returns the Stream. It tries for ever; DELETE ends it."""
    authorise(request, service.config.auth, Scope.CONTROL)
    if service.draining:
        raise NotReady("the service is shutting down", found="draining", expected="ready")
    source = _source(service.pulls, body)
    service.router.admit(body.name)
    pull = service.pulls.add(body.name, source)
    work = _run(service, pull)
    service.tasks.create_task(supervise(f"source of stream {body.name}", work))
    async with asyncio.timeout(_START_S):
        await pull.seated.wait()
    if pull.status.state is PullState.FAILED:
        raise NotReady(f"stream {body.name} cannot be pulled: {pull.status.reason}")
    return JSONResponse(
        stream_json(service.router.stream(body.name).snapshot()),
        status_code=201,
        headers={"Location": f"/api/v1/streams/{body.name}"},
    )


@sources.get("/streams/{stream}/source")
async def read_source(stream: StreamName, request: Request, service: TheService) -> dict[str, Any]:
    """Where a stream is fetched from and how that goes; never the token."""
    authorise(request, service.config.auth, Scope.CONTROL)
    return _source_json(service.pulls.get(stream))


@sources.put("/streams/{stream}/source", status_code=202)
async def change_source(
    stream: StreamName, body: SourceChange, request: Request, service: TheService
) -> dict[str, Any]:
    """Pass prompts and parameters on to Scope; they hold for later connections, too."""
    authorise(request, service.config.auth, Scope.CONTROL)
    pull = service.pulls.get(stream)
    if not isinstance(pull.source, ScopeSource):
        raise Problem(
            409,
            "no-parameters",
            "No parameters",
            f"a source of kind {pull.source.kind} takes no parameters",
            found=pull.source.kind,
            expected="scope",
        )
    changes = dict(body.parameters)
    if body.prompts is not None:
        changes["prompts"] = _prompts(body.prompts)
    pull.source.set_parameters(changes)
    return _source_json(pull)


async def _run(service: Service, pull: PullPublisher) -> None:
    """The life of a pull: its connections beside its place in the stream."""
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pull.run())
            try:
                # A source may be away, or load its model, for longer than viewers are kept else.
                await service.router.publish(pull.stream, pull, lasting=True)
            except StreamliftError as error:
                pull.fail(str(error))
            finally:
                await pull.aclose("stream ended")
    finally:
        pull.seated.set()
        service.pulls.forget(pull.stream, pull)


def _source(pulls: Pulls, body: NewStream) -> Source:
    source = body.source
    if isinstance(source, WhepBody):
        token = None if source.token is None else source.token.get_secret_value()
        return pulls.whep(body.name, source.url, token)
    if isinstance(source, DaydreamBody):
        return pulls.daydream(body.name, source.stream_id)
    parameters = dict(source.parameters)
    if source.prompts:
        parameters["prompts"] = _prompts(source.prompts)
    return pulls.scope(
        body.name,
        source.url,
        source.pipeline,
        load_params=source.load_params,
        parameters=parameters,
    )


def _prompts(prompts: list[Prompt | str]) -> list[dict[str, Any]]:
    return [
        {"text": p, "weight": 1.0} if isinstance(p, str) else {"text": p.text, "weight": p.weight}
        for p in prompts
    ]


def _source_json(pull: PullPublisher) -> dict[str, Any]:
    status = pull.status
    return {
        "stream": pull.stream,
        "kind": pull.source.kind,
        **pull.source.describe(),
        "state": status.state,
        "reason": status.reason,
        "connections": status.connections,
        "jumps": status.jumps,
    }
