"""Who may do what: each route declares the right that it needs, and its token is looked at first.

A route says `dependencies=[needs(Scope.CONTROL)]`. The check runs before anything else of the
request is read: a stranger's body, path or query is not worth a look.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fastapi import Depends, Request, Response
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute

from streamlift.api.door import service_of
from streamlift.api.problems import Problem
from streamlift.config import AuthConfig
from streamlift.service import Role

__all__ = ["GuardedRoute", "Right", "Scope", "allowed", "needs", "of_session"]


class Scope(StrEnum):
    """The three doors; each has its own tokens."""

    PUBLISH = "publish"
    VIEW = "view"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Right:
    """A token of one of `scopes`; `session`: or one that may open the session of the address."""

    scopes: tuple[Scope, ...]
    session: bool = False

    async def check(self, request: Request) -> None:
        """Raises Problem 401 without a usable token, 403 with another door's, UnknownSession."""
        service = await service_of(request)
        scopes = self.scopes
        if self.session:
            role = service.sessions.get(request.path_params["session_id"]).role
            scopes = (Scope.PUBLISH if role is Role.PUBLISH else Scope.VIEW, *scopes)
        _authorise(request, service.config.auth, scopes)

    async def __call__(self) -> None:
        """Nothing is left to do: `GuardedRoute` has checked before FastAPI gets here."""


def needs(*scopes: Scope) -> Dependency:
    """A route's declaration: only with a token of one of `scopes`."""
    return _declared(Right(scopes))


def of_session(*scopes: Scope) -> Dependency:
    """A route's declaration: only with a token of the session's own door, or one of `scopes`."""
    return _declared(Right(scopes, session=True))


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


def _declared(right: Right) -> Dependency:
    dependency = Depends(right)
    assert isinstance(dependency, Dependency)
    return dependency


def _authorise(request: Request, auth: AuthConfig, scopes: tuple[Scope, ...]) -> None:
    """Let the request pass if its bearer token opens one of `scopes`, or one of them has no token.

    Raises Problem 401 without a usable token (RFC 6750 section 3), 403 with another door's token.
    """
    doors = [_tokens(auth, scope) for scope in scopes]
    if any(not door for door in doors):
        return
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
    if any(_matches(token, door) for door in doors):
        return
    if any(_matches(token, _tokens(auth, scope)) for scope in Scope):
        raise Problem(
            403,
            "token-scope",
            "Token not valid here",
            f"this token does not allow to {' or '.join(scopes)}",
        )
    raise Problem(
        401,
        "token-wrong",
        "Token not accepted",
        "the bearer token is not known here",
        headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
    )


def _tokens(auth: AuthConfig, scope: Scope) -> tuple[str, ...]:
    return {
        Scope.PUBLISH: auth.publish,
        Scope.VIEW: auth.view,
        Scope.CONTROL: auth.control,
    }[scope]


def _matches(token: str, tokens: tuple[str, ...]) -> bool:
    """Compare with every token, each in constant time."""
    results = [hmac.compare_digest(token.encode(), known.encode()) for known in tokens]
    return any(results)
