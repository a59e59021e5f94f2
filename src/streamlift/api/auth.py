"""Who may do what: bearer tokens, and without tokens the Origin and Host checks."""

from __future__ import annotations

import hmac
import ipaddress
from enum import StrEnum
from urllib.parse import urlsplit

from fastapi import Request

from streamlift.api.problems import Problem
from streamlift.config import AuthConfig, Config
from streamlift.errors import ConfigError

__all__ = ["Scope", "authorise", "check_exposure", "host_allowed", "is_loopback", "origin_allowed"]


class Scope(StrEnum):
    """The three doors; each has its own tokens."""

    PUBLISH = "publish"
    VIEW = "view"
    CONTROL = "control"


def authorise(request: Request, auth: AuthConfig, *scopes: Scope) -> None:
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


def check_exposure(config: Config) -> None:
    """Refuse to serve a public address while a door has no token. Raises ConfigError."""
    if config.auth.complete or is_loopback(config.server.host):
        return
    open_doors = [scope.value for scope in Scope if not _tokens(config.auth, scope)]
    raise ConfigError(
        f"server.host {config.server.host} is not a loopback address, but auth has no token for "
        f"{', '.join(open_doors)}; set auth.publish, auth.view and auth.control "
        "(STREAMLIFT_AUTH__PUBLISH=...), or bind to 127.0.0.1",
        found=open_doors,
        expected="tokens for all three",
    )


def is_loopback(host: str) -> bool:
    """True for localhost, 127.0.0.0/8 and ::1."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_allowed(host_header: str, config: Config) -> bool:
    """Without tokens only names of this machine: a DNS name pointed at 127.0.0.1 is refused."""
    if config.auth.complete:
        return True
    try:
        name = urlsplit(f"//{host_header}").hostname or ""
    except ValueError:
        return False  # such as "[": no name at all
    return is_loopback(name) or name == config.server.host


def origin_allowed(origin: str | None, host_header: str, scheme: str, config: Config) -> bool:
    """Requests without an Origin, from our own page, or from a listed origin; with tokens, any.

    Bearer tokens are never sent by a browser on its own, so with them a foreign page gains nothing.
    """
    if origin is None or origin in config.server.allowed_origins:
        return True
    if config.auth.complete and not config.server.allowed_origins:
        return True
    return origin == f"{scheme}://{host_header}"


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
