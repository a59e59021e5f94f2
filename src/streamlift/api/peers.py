"""Other services' streams: who has one is asked, and a viewer's requests are passed on to it.

Passed on, not redirected: on a redirect to another origin browsers and HTTP libraries drop the
Authorization header, so that would fail exactly where tokens are needed. Media then flows between
the viewer and the service that has the stream.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from fastapi import APIRouter, Request, Response

from streamlift.api.door import TheService
from streamlift.api.forwarded import outside
from streamlift.api.problems import Problem
from streamlift.api.rights import CONTROL_TOKEN, GuardedRoute, Scope, needs

__all__ = ["Peers", "passed_on", "peer_sessions"]

ASK_S = 0.3
KEPT_S = 1.0
PASS_ON_S = 10.0
_REMEMBERED = 256
MOST_BYTES = 64 * 1024
PASSED_ON = "streamlift-passed-on"
"""Request header of what came from another service: it goes no further."""
_REQUEST_HEADERS = ("authorization", "content-type", "if-match", CONTROL_TOKEN)
_ANSWER_HEADERS = ("content-type", "etag", "link", "retry-after", "accept-post", "accept-patch")

peer_sessions = APIRouter(tags=["WHIP and WHEP"], route_class=GuardedRoute)


class Peers:
    """The services named by `cluster.peers`; answers are kept for a second, 256 of them."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self._urls = {_short(url): url.rstrip("/") for url in urls}
        self._known: dict[tuple[str, str], tuple[float, str | None]] = {}
        """By stream and by who asks: one whose token a peer refuses hides it from nobody else."""
        self._trust: ssl.SSLContext | None = None

    def __bool__(self) -> bool:
        return bool(self._urls)

    async def owner(self, stream: str, authorization: str | None) -> str | None:
        """The short name of a peer at which somebody publishes this stream now."""
        now_s = time.monotonic()
        key = (stream, hashlib.sha256((authorization or "").encode()).hexdigest())
        asked_s, owner = self._known.get(key, (float("-inf"), None))
        if now_s - asked_s < KEPT_S:
            return owner
        headers = {"authorization": authorization} if authorization else {}
        async with await self._client(ASK_S, headers) as http:
            found = await asyncio.gather(*(_has(http, url, stream) for url in self._urls.values()))
        owner = next((name for name, has in zip(self._urls, found, strict=True) if has), None)
        self._known.pop(key, None)
        self._known[key] = (now_s, owner)
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        return owner

    async def pass_on(self, request: Request, peer: str, path: str) -> Response:
        """The peer's answer to this request; its sessions get names that lead back to it.

        Raises Problem 502 when the peer does not answer, 404 for a peer that is not configured.
        """
        url = self._urls.get(peer)
        if url is None:
            raise Problem(404, "unknown-session", "Unknown session", "no such session")
        headers = {k: v for k in _REQUEST_HEADERS if (v := request.headers.get(k)) is not None}
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                raise Problem(
                    413, "sdp-too-large", "SDP too large", "the body is larger than any real one"
                )
        query = f"?{request.url.query}" if request.url.query else ""
        async with await self._client(PASS_ON_S, {**headers, PASSED_ON: "1"}) as http:
            try:
                answer = await http.request(request.method, f"{url}{path}{query}", content=body)
            except httpx.HTTPError as error:
                self._known.clear()
                raise Problem(
                    502, "peer", "Peer not reached", f"{urlsplit(url).netloc} does not answer"
                ) from error
        response = Response(answer.content, answer.status_code)
        for key, value in answer.headers.multi_items():
            if key in _ANSWER_HEADERS:
                response.headers.append(key, value)
        location = answer.headers.get("location")
        if location is not None:
            session = urlsplit(location).path.rpartition("/")[2]
            response.headers["location"] = outside(request, f"/sessions/{peer}.{session}")
        return response

    async def _client(self, timeout_s: float, headers: dict[str, str]) -> httpx.AsyncClient:
        if self._trust is None:
            # In a thread: it reads every CA of the machine.
            self._trust = await asyncio.to_thread(ssl.create_default_context)
        return httpx.AsyncClient(
            headers=headers, timeout=timeout_s, verify=self._trust, trust_env=False
        )


async def _has(http: httpx.AsyncClient, url: str, stream: str) -> bool:
    try:
        async with asyncio.timeout(ASK_S):
            answer = await http.get(f"{url}/api/v1/streams/{quote(stream)}")
            told: Any = answer.json() if answer.status_code == 200 else None
    except (httpx.HTTPError, TimeoutError, ValueError):
        return False
    return isinstance(told, dict) and told.get("publisher") is not None


def _short(url: str) -> str:
    """A name for a peer in the paths of its sessions; the same after a restart."""
    return hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:8]


async def passed_on(request: Request, service: TheService, stream: str) -> Response | None:
    """The answer of the service that has this stream, if it is another one."""
    peers: Peers = request.app.state.peers
    if not peers or PASSED_ON in request.headers or service.publishes(stream):
        return None
    owner = await peers.owner(stream, request.headers.get("authorization"))
    if owner is None:
        return None
    return await peers.pass_on(request, owner, f"/whep/{quote(stream)}")


_RIGHTS = [needs(Scope.VIEW, Scope.CONTROL)]


@peer_sessions.patch("/sessions/{peer}.{session_id}", dependencies=_RIGHTS)
async def trickle_elsewhere(peer: str, session_id: str, request: Request) -> Response:
    """Add ICE candidates to a session of another service, which checks the token as well."""
    return await _at_peer(request, peer, session_id)


@peer_sessions.delete("/sessions/{peer}.{session_id}", dependencies=_RIGHTS)
async def end_elsewhere(peer: str, session_id: str, request: Request) -> Response:
    """End a session of another service, which checks the token as well."""
    return await _at_peer(request, peer, session_id)


async def _at_peer(request: Request, peer: str, session_id: str) -> Response:
    peers: Peers = request.app.state.peers
    return await peers.pass_on(request, peer, f"/sessions/{quote(session_id)}")
