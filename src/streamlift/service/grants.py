"""What tokens allow: the configured ones, and links that expire (JSON Web Tokens, RFC 7519)."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import jwt

from streamlift.config import NAME_PATTERN, AuthConfig, TokenConfig
from streamlift.errors import ConfigError, TokenExpired, TokenUnknown

__all__ = ["LONGEST_LINK_S", "Grant", "Grants", "Link", "Scope"]

LONGEST_LINK_S = 7 * 86_400
_LATEST_S = 1e11
"""Some three thousand years on; milliseconds in place of seconds are past it."""
_ALGORITHM = "HS256"
"""The only one that is read: a token must not choose how it is checked (RFC 8725 section 3.1)."""
_MOST_REVOKED = 10_000


class Scope(StrEnum):
    """The three doors; each has its own tokens."""

    PUBLISH = "publish"
    VIEW = "view"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Grant:
    """What one token allows: for each door the streams, None meaning all of them.

    `key` tells tokens apart and cannot be turned back into one; it is empty where a door has no
    tokens and everybody may come in.
    """

    key: str = ""
    rights: Mapping[Scope, frozenset[str] | None] = field(
        default_factory=lambda: dict.fromkeys(Scope)
    )
    expires_s: float | None = None
    """Unix time at which a link ends, with all that was begun by it."""
    link: str | None = None

    def allows(self, scopes: Collection[Scope], stream: str | None = None) -> bool:
        """Whether it opens one of the doors, for this stream if one is named."""
        for scope in scopes:
            if scope in self.rights:
                streams = self.rights[scope]
                if stream is None or streams is None or stream in streams:
                    return True
        return False


ANYBODY = Grant()


@dataclass(frozen=True, slots=True)
class Link:
    """A token of its own for one stream; `expires_s` is Unix time."""

    id: str
    token: str
    expires_s: int


class Grants:
    """Reads tokens. `replace` takes another configuration while the service runs."""

    def __init__(self, auth: AuthConfig, unix_s: Callable[[], float] = time.time) -> None:
        self._unix_s = unix_s
        self._revoked: dict[str, float] = {}
        self._doors: dict[Scope, tuple[tuple[bytes, frozenset[str] | None], ...]] = {}
        self._secret: str | None = None
        self.replace(auth)

    def replace(self, auth: AuthConfig) -> None:
        """Use these tokens from now on; sessions of others end within seconds."""
        self._doors = {
            Scope.PUBLISH: tuple(map(_known, auth.publish)),
            Scope.VIEW: tuple(map(_known, auth.view)),
            Scope.CONTROL: tuple(map(_known, auth.control)),
        }
        self._secret = auth.link_secret

    def open_to_all(self, scopes: Collection[Scope]) -> bool:
        """Whether one of the doors has no token at all."""
        return any(not self._doors[scope] for scope in scopes)

    def read(self, token: str) -> Grant:
        """Raises TokenUnknown, or TokenExpired for a link that has ended or was revoked."""
        digest = hashlib.sha256(token.encode()).digest()
        rights: dict[Scope, frozenset[str] | None] = {}
        for scope, door in self._doors.items():
            for known, streams in door:
                # Each in constant time, and all of them, whichever it is.
                if hmac.compare_digest(digest, known):
                    rights[scope] = _both(rights.get(scope, frozenset()), streams)
        if rights:
            return Grant(_key(digest), rights)
        return self._read_link(token, digest)

    def holds(self, grant: Grant) -> bool:
        """Whether what was begun with this grant may go on."""
        if grant.link is not None:
            return self._secret is not None and not self._over(grant)
        if not grant.key:
            return True
        return any(_key(known) == grant.key for door in self._doors.values() for known, _ in door)

    def link(self, stream: str, right: Scope, ttl_s: int) -> Link:
        """A new link. Raises ConfigError without `auth.link_secret`."""
        if self._secret is None:
            raise ConfigError(
                "links need a secret: set STREAMLIFT_AUTH__LINK_SECRET to 32 characters or more",
                expected="auth.link_secret",
            )
        name = secrets.token_urlsafe(9)
        expires_s = int(self._unix_s()) + ttl_s
        claims = {"exp": expires_s, "stream": stream, "right": str(right), "jti": name}
        return Link(name, jwt.encode(claims, self._secret, _ALGORITHM), expires_s)

    def revoke(self, stream: str, link: str) -> None:
        """End a link, and soon all that was begun by it. It need not be known: a service that was
        started anew takes links of its former life. Forgotten when no link can be as old."""
        now_s = self._unix_s()
        self._revoked = {k: v for k, v in self._revoked.items() if v > now_s}
        while len(self._revoked) >= _MOST_REVOKED:
            del self._revoked[next(iter(self._revoked))]
        self._revoked[_name(stream, link)] = now_s + LONGEST_LINK_S

    def _read_link(self, token: str, digest: bytes) -> Grant:
        if self._secret is None:
            raise TokenUnknown("the bearer token is not known here")
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                options={"require": ["exp", "stream", "right"], "verify_exp": False},
            )
        except jwt.InvalidTokenError as error:
            raise TokenUnknown("the bearer token is not known here") from error
        stream, right, expires = claims["stream"], claims["right"], claims["exp"]
        name = claims.get("jti", "")
        if not (
            isinstance(stream, str)
            and re.fullmatch(NAME_PATTERN, stream)
            and right in (Scope.VIEW, Scope.PUBLISH)
            and _is_a_time(expires)
            and isinstance(name, str)
        ):
            raise TokenUnknown("the bearer token is not one of this service's links")
        grant = Grant(
            _key(digest), {Scope(right): frozenset({stream})}, float(expires), _name(stream, name)
        )
        if self._over(grant):
            raise TokenExpired("this link has ended; ask for another one", found=int(expires))
        return grant

    def _over(self, grant: Grant) -> bool:
        expired = grant.expires_s is not None and grant.expires_s <= self._unix_s()
        return expired or grant.link in self._revoked


def _is_a_time(value: object) -> bool:
    """Python reads more numbers than JSON has; with NaN a link would never end."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _LATEST_S  # False for NaN


def _both(some: frozenset[str] | None, more: frozenset[str] | None) -> frozenset[str] | None:
    return None if some is None or more is None else some | more


def _known(token: str | TokenConfig) -> tuple[bytes, frozenset[str] | None]:
    """Its digest and its streams: the token itself is not kept."""
    if isinstance(token, str):
        return hashlib.sha256(token.encode()).digest(), None
    streams = None if token.streams is None else frozenset(token.streams)
    return hashlib.sha256(token.token.encode()).digest(), streams


def _name(stream: str, link: str) -> str:
    """Of a link: nobody who may take back links of one stream reaches those of another."""
    return f"{stream}/{link}"


def _key(digest: bytes) -> str:
    return digest[:12].hex()
