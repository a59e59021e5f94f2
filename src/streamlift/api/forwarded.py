"""What a reverse proxy tells of the request it passes on, if it is one that is trusted."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from streamlift.config import PREFIX_PATTERN, Config

__all__ = ["Forwarded", "outside", "path_within"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Forwarded:
    """ASGI middleware, the outermost: client, scheme and prefix as the proxy's client knows them.

    X-Forwarded-For, -Proto and -Prefix are read from `server.trusted_proxies` only; anybody else
    could write there what he likes. `server.root_path` wins over a prefix that is told. A proxy
    strips the prefix from the path; only with `server.root_path` may it stay there.
    """

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self._app = app
        self._root_path = config.server.root_path
        self._trusted = [
            ipaddress.ip_network(proxy, strict=False) for proxy in config.server.trusted_proxies
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = self._seen_from_outside(scope)
        await self._app(scope, receive, send)

    def _seen_from_outside(self, scope: Scope) -> Scope:
        prefix = self._root_path
        changes: dict[str, object] = {}
        client = scope.get("client")
        if client is not None and self._is_trusted(_address(client[0])):
            headers = Headers(scope=scope)
            told = headers.getlist
            if (whose := self._client(told("x-forwarded-for"))) is not None:
                changes["client"] = (whose, 0)
            if (scheme := _last(told("x-forwarded-proto")).lower()) in ("http", "https"):
                changes["scheme"] = scheme
            if not prefix and is_prefix(path := _last(told("x-forwarded-prefix"))):
                prefix = path
        if prefix and not (self._root_path and scope["path"].startswith(prefix + "/")):
            changes["path"] = prefix + scope["path"]
            if scope.get("raw_path") is not None:
                changes["raw_path"] = prefix.encode() + scope["raw_path"]
        if prefix:
            changes["root_path"] = prefix
        return {**scope, **changes}

    def _client(self, told: Iterable[str]) -> str | None:
        """The nearest address that is not a trusted proxy's own; each proxy adds at the end."""
        found: _Address | None = None
        for text in reversed([part.strip() for line in told for part in line.split(",")]):
            address = _address(text)
            if address is None:
                break
            found = address
            if not self._is_trusted(address):
                break
        return None if found is None else str(found)

    def _is_trusted(self, address: _Address | None) -> bool:
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address is not None and any(address in network for network in self._trusted)


def is_prefix(path: str) -> bool:
    """Whether it can be put before our own addresses: plain segments, none of them dots alone."""
    return bool(re.fullmatch(PREFIX_PATTERN, path)) and not {".", ".."} & set(path.split("/"))


def outside(request: Request, path: str) -> str:
    """One of our own addresses, as the client reaches it."""
    return str(request.scope.get("root_path", "")) + path


def path_within(scope: Scope) -> str:
    """The path of a request without the prefix that it is served under."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) if root else path


def _address(text: str) -> _Address | None:
    """Of an entry such as `203.0.113.9`, `203.0.113.9:4711` or `[2001:db8::1]:4711`."""
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::\d+)?", text)
    if bracketed:
        text = bracketed[1]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _last(told: list[str]) -> str:
    return told[-1].rpartition(",")[2].strip() if told else ""
