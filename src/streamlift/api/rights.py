"""Who may do what: each route declares the right that it needs, and its token is looked at first.

A route says `dependencies=[needs(Scope.CONTROL)]`. The check runs before anything else of the
request is read: a stranger's body, path or query is not worth a look. What it found is the route's
`TheCaller`.
"""

from __future__ import annotations

import math
from asyncio import sleep
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.openapi.models import HTTPBearer
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase

from streamlift.api.door import service_of
from streamlift.api.problems import Problem
from streamlift.errors import TokenExpired, TokenUnknown
from streamlift.service import Caller, Grant, Role, Scope, Service, address_of

__all__ = [
    "CONTROL_TOKEN",
    "GuardedRoute",
    "Right",
    "Scope",
    "TheCaller",
    "allowed",
    "must_allow",
    "must_allow_all",
    "must_also_control",
    "needs",
    "of_session",
]

CONTROL_TOKEN = "streamlift-control"
"""Request header with a token of the control door, where the bearer token is another door's."""
_INVALID = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


@dataclass(frozen=True, slots=True)
class Right(SecurityBase):
    """A token of one of `scopes`; `session`: or one that may open the session of the address.

    Where the address names a stream, or a session of one, the token must be for that stream.
    """

    scopes: tuple[Scope, ...]
    session: bool = False
    # For OpenAPI: which routes want a token.
    model = HTTPBearer(description="One of the tokens of the configuration, or of a link")
    scheme_name = "token"

    async def check(self, request: Request) -> None:
        """Raises Problem 401 without a usable token, 403 with another door's or stream's, 429
        for guesses; UnknownSession."""
        service = await service_of(request)
        scopes = self.scopes
        # A stream is named in the address; where that names none, the query may.
        stream = request.path_params.get("stream", request.query_params.get("stream"))
        if self.session:
            session = service.sessions.get(request.path_params["session_id"])
            scopes = (Scope.PUBLISH if session.role is Role.PUBLISH else Scope.VIEW, *scopes)
            stream = session.stream
        address = address_of(request.client.host) if request.client else ""
        caller = Caller(address)
        if not service.grants.open_to_all(scopes):
            token = _bearer(request, scopes)
            caller = Caller(address, await _read(service, token, address))
            must_allow(caller, scopes, stream)
        request.state.caller = caller

    async def __call__(self) -> None:
        """Nothing is left to do: `GuardedRoute` has checked before FastAPI gets here."""


def needs(*scopes: Scope) -> Dependency:
    """A route's declaration: only with a token of one of `scopes`."""
    return _declared(Right(scopes))


def of_session(*scopes: Scope) -> Dependency:
    """A route's declaration: only with a token of the session's own door, or one of `scopes`."""
    return _declared(Right(scopes, session=True))


def must_allow(caller: Caller, scopes: tuple[Scope, ...], stream: str | None) -> None:
    """Raises Problem 403 when the caller's token is for another door, or another stream."""
    grant = caller.grant
    if grant.allows(scopes, stream):
        return
    what = f"to {' or '.join(scopes)}"
    if grant.allows(scopes):
        what += " this stream"
    raise Problem(403, "token-scope", "Token not valid here", f"this token does not allow {what}")


def must_allow_all(caller: Caller, scope: Scope) -> None:
    """For what concerns all streams: raises Problem 403 where the token is for some of them."""
    if caller.grant.rights.get(scope, frozenset()) is not None:
        raise Problem(
            403,
            "token-scope",
            "Token not valid here",
            f"this needs a token to {scope} that is for all streams",
        )


async def must_also_control(request: Request, caller: Caller, stream: str) -> Caller:
    """By what this caller, who came in by another door, may control the stream too: the bearer
    token, or that of the header `Streamlift-Control`. Raises Problem 401, 403 or 429."""
    service = await service_of(request)
    scopes = (Scope.CONTROL,)
    if service.grants.open_to_all(scopes):
        return Caller(caller.address)
    token = request.headers.get(CONTROL_TOKEN) or _bearer(request, scopes)
    found = Caller(caller.address, await _read(service, token, caller.address))
    must_allow(found, scopes, stream)
    return found


class GuardedRoute(APIRoute):
    """Looks at the token before the path, the query or the body. Refuses to be built without a
    declared right."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        rights = [d.dependency for d in self.dependencies if isinstance(d.dependency, Right)]
        if not rights:
            raise TypeError(f"{self.path} declares no right; add dependencies=[needs(...)]")

        async def handle_with_right(request: Request) -> Response:
            for right in rights:
                await right.check(request)
            return await handle(request)

        return handle_with_right


async def allowed(request: Request, *scopes: Scope) -> bool:
    """Whether the request's token would do; for open routes that tell more to those they know."""
    try:
        await Right(scopes).check(request)
    except Problem:
        return False
    return True


async def _caller_of(request: Request) -> Caller:
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller


TheCaller = Annotated[Caller, Depends(_caller_of)]
"""Who asks; on a `GuardedRoute`."""


def _declared(right: Right) -> Dependency:
    dependency = Depends(right)
    assert isinstance(dependency, Dependency)
    return dependency


def _bearer(request: Request, scopes: tuple[Scope, ...]) -> str:
    """The token of the request. Raises Problem 401 (RFC 6750 section 3)."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token:
        raise Problem(
            401,
            "token-missing",
            "Token required",
            f"this needs a bearer token to {' or '.join(scopes)}",
            expected="Authorization: Bearer <token>",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return token


async def _read(service: Service, token: str, address: str) -> Grant:
    """What the token allows. A wrong one waits for its answer, which holds up nobody else."""
    try:
        return service.grants.read(token)
    except TokenExpired as error:
        service.metrics.count("auth_failures_total", reason="expired")
        raise Problem(
            401, "token-expired", "Token expired", str(error), found=error.found, headers=_INVALID
        ) from None
    except TokenUnknown as error:
        service.metrics.count("auth_failures_total", reason="wrong")
        delay_s = service.guesses.wrong(address)
        if delay_s is None:
            retry_s = math.ceil(service.guesses.retry_s(address))
            raise Problem(
                429,
                "too-many-wrong-tokens",
                "Too many wrong tokens",
                "this address has shown too many tokens that are not known here",
                headers={"Retry-After": str(retry_s)},
            ) from None
        await sleep(delay_s)
        raise Problem(
            401, "token-wrong", "Token not accepted", str(error), headers=_INVALID
        ) from None
