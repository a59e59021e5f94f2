"""Pulling by WHEP: this service as a viewer of somebody else's stream.

Made for livepeer/go-livepeer (`media/whep_server.go`) and servers like mediamtx; what differs from
draft-ietf-wish-whep there is noted where it matters.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from streamlift.clock import Clock
from streamlift.config import IceConfig, IceServer
from streamlift.errors import ConfigError, MalformedSdp, MediaError, StreamliftError
from streamlift.frames import Codec
from streamlift.media.remote.fetch import Fetcher, Reply
from streamlift.media.remote.pull import SourceBusy, SourceRefused
from streamlift.media.remote.pulled import Pulled
from streamlift.media.remote.url_safety import HostRules, same_origin
from streamlift.tasks import to_its_end

__all__ = ["WhepSource", "check_token", "open_whep", "permitted", "shown_url"]

logger = logging.getLogger(__name__)

FIRST_FRAME_S = 10.0
STALL_S = 5.0
_SDP = "application/sdp"
_NOTHING_YET_S = 0.5
_FULL_S = 2.0
_FINAL = {
    401: "it wants another token",
    403: "this token does not allow it",
    415: "it does not take SDP there; is this a WHEP address?",
}
MakeFetcher = Callable[[], Fetcher]


class WhepSource:
    """Fits `pull.Source`: one WHEP address, with a token if it needs one."""

    kind = "whep"
    doing = ""
    first_frame_s = FIRST_FRAME_S
    stall_s = STALL_S

    def __init__(
        self,
        stream: str,
        url: str,
        token: str | None,
        *,
        fetcher: MakeFetcher,
        rules: HostRules,
        ice: IceConfig,
        max_side: int,
        clock: Clock,
    ) -> None:
        """Raises ConfigError when the URL is not allowed, or the token cannot be sent."""
        rules.check(url)
        check_token("token", token)
        self._stream = stream
        self._url = url
        self._token = token
        self._fetcher = fetcher
        self._rules = rules
        self._ice = ice
        self._max_side = max_side
        self._clock = clock

    def describe(self) -> Mapping[str, Any]:
        return {"url": shown_url(self._url)}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Pulled]:
        def make(audio: bool) -> Pulled:
            return Pulled(
                f"stream {self._stream}",
                self._ice,
                codecs=(Codec.H264,),
                audio=audio,
                max_side=self._max_side,
                clock=self._clock,
            )

        async with (
            self._fetcher() as http,
            open_whep(http, self._url, self._token, make, self._note_servers) as pulled,
        ):
            yield pulled

    def _note_servers(self, links: str) -> None:
        """STUN and TURN servers named in the answer serve the next connection, if we have none."""
        if not self._ice.servers:
            servers = permitted(_ice_servers(links), self._rules)
            self._ice = replace(self._ice, servers=servers)


@asynccontextmanager
async def open_whep(
    http: Fetcher,
    url: str,
    token: str | None,
    make: Callable[[bool], Pulled],
    note_servers: Callable[[str], None],
) -> AsyncIterator[Pulled]:
    """One WHEP session, connected; ended by DELETE where the server gave it an address.

    The offer asks for audio too: go-livepeer's gateway starts sooner then. aiortc cannot read an
    answer that rejects it (port 0), so then it is offered again, without.
    Raises SourceBusy, SourceRefused or another StreamliftError.
    """
    pulled, resource = make(True), None
    try:
        reply = await _post(http, url, token, await pulled.peer.offer())
        resource = _resource(reply)
        if _rejects_audio(reply.text):
            await _delete(http, resource, url, token)
            await pulled.aclose()
            pulled, resource = make(False), None
            reply = await _post(http, url, token, await pulled.peer.offer())
            resource = _resource(reply)
        note_servers(reply.headers.get("link", ""))
        await pulled.accept(reply.text)
        await pulled.peer.connected()
        yield pulled
    finally:
        await to_its_end(_finish(http, pulled, resource, url, token))


async def _finish(
    http: Fetcher, pulled: Pulled, resource: str | None, url: str, token: str | None
) -> None:
    await pulled.aclose()
    await _delete(http, resource, url, token)


async def _post(http: Fetcher, url: str, token: str | None, offer: str) -> Reply:
    # Exactly this content type: go-livepeer refuses one with parameters.
    reply = await http.request("POST", url, content=offer, content_type=_SDP, token=token)
    where = reply.url.host
    if reply.status in (404, 409, 503):  # 409: what a server of ours says
        raise SourceBusy(f"{where} has nothing to show yet", retry_s=_NOTHING_YET_S)
    if reply.status == 429:
        raise SourceBusy(f"{where} has too many viewers", retry_s=_FULL_S)
    if reply.status in _FINAL:
        raise SourceRefused(f"{where} answered {reply.status}: {_FINAL[reply.status]}")
    if reply.status not in (200, 201):
        raise MediaError(f"{where} answered {reply.status}", found=reply.status, expected=201)
    if not reply.text.startswith("v=0"):
        raise MalformedSdp(f"{where} did not answer with SDP", found=reply.text[:40])
    return reply


def _resource(reply: Reply) -> str | None:
    """The session's address; go-livepeer names none. Relative to where the answer came from."""
    location = reply.headers.get("location")
    return None if not location else str(reply.url.join(location))


async def _delete(http: Fetcher, resource: str | None, url: str, token: str | None) -> None:
    """The token goes to the server that was asked for the stream, wherever the session lies."""
    if resource is None:
        return
    try:
        await http.request("DELETE", resource, token=token if same_origin(url, resource) else None)
    except StreamliftError as error:
        logger.debug("a session was left to its server: %s", error)


def _rejects_audio(answer: str) -> bool:
    return re.search(r"^m=audio 0 ", answer, re.MULTILINE) is not None


def _ice_servers(links: str) -> list[IceServer]:
    """`<stun:host:3478>; rel="ice-server"`, as RFC 9725 4.6 writes them."""
    servers = []
    for match in re.finditer(r'<((?:stun|turns?):[^<>"\s]+)>([^<]*)', links):
        url, rest = match[1], match[2]
        if not re.search(r'rel="?ice-server"?', rest):
            continue
        name = re.search(r'username="([^"]*)"', rest)
        secret = re.search(r'credential="([^"]*)"', rest)
        servers.append(IceServer(url.partition("?")[0], name and name[1], secret and secret[1]))
    return servers


def permitted(servers: Iterable[IceServer], rules: HostRules) -> tuple[IceServer, ...]:
    """Of the ICE servers that a source names, those on hosts that the operator allowed."""
    return tuple(server for server in servers if _permits(rules, server.urls))


def _permits(rules: HostRules, server: str) -> bool:
    host = server.partition(":")[2].partition("?")[0]
    try:
        rules.check(f"https://{host}")
    except ConfigError:
        return False
    return True


def check_token(name: str, token: str | None) -> None:
    """Raises ConfigError for what no header can carry; the message does not repeat it."""
    if token is not None and not re.fullmatch(r"[\x21-\x7e]{1,4096}", token):
        raise ConfigError(
            f"the {name} cannot be sent: it is empty, longer than 4096 characters, or has "
            "characters other than printable ASCII",
            expected="1 to 4096 printable ASCII characters",
        )


def shown_url(url: str) -> str:
    """A URL without its query, which may hold a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
