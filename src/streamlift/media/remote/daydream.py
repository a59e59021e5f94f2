"""Pulling a stream of daydream.live: ask the service where it plays, then play it by WHEP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from streamlift.errors import MediaError
from streamlift.media.remote.fetch import Fetcher, Reply
from streamlift.media.remote.pull import SourceBusy, SourceRefused
from streamlift.media.remote.pull_whep import FIRST_FRAME_S, STALL_S, WhepSource
from streamlift.media.remote.pulled import Pulled

__all__ = ["DaydreamSource"]

_ASK_EVERY_S = 2.0


class DaydreamSource:
    """Fits `pull.Source`: a stream's id there, and the account's key.

    The address to play exists only while somebody publishes to the stream, and may be another one
    each time. `whep` makes a source of an address; it raises ConfigError when it is not allowed.
    """

    kind = "daydream"
    doing = ""
    first_frame_s = FIRST_FRAME_S
    stall_s = STALL_S

    def __init__(
        self,
        stream_id: str,
        key: str,
        *,
        base_url: str,
        fetcher: Callable[[], Fetcher],
        whep: Callable[[str], WhepSource],
    ) -> None:
        self._stream_id = stream_id
        self._key = key
        self._base_url = base_url.rstrip("/")
        self._fetcher = fetcher
        self._whep = whep

    def describe(self) -> Mapping[str, Any]:
        return {"stream_id": self._stream_id}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Pulled]:
        async with self._fetcher() as http:
            url = f"{self._base_url}/v1/streams/{quote(self._stream_id, safe='')}/status"
            playback = _playback_url(await http.request("GET", url, token=self._key))
        # The key is daydream's, not the gateway's that plays.
        async with self._whep(playback).open() as pulled:
            yield pulled


def _playback_url(reply: Reply) -> str:
    where = reply.url.host
    if reply.status in (401, 403):
        raise SourceRefused(
            f"{where} answered {reply.status}: it does not accept the key in "
            "STREAMLIFT_SOURCES__DAYDREAM_KEY"
        )
    if reply.status in (404, 429, 503):
        raise SourceBusy(f"{where} answered {reply.status} for this stream", retry_s=_ASK_EVERY_S)
    if reply.status != 200:
        raise MediaError(f"{where} answered {reply.status}", found=reply.status, expected=200)
    try:
        status = json.loads(reply.text)
    except ValueError as error:
        raise MediaError(f"{where} did not answer with JSON: {error}") from error
    gateway = _below(status, "data", "gateway_status")
    address = gateway.get("whep_url")
    if not isinstance(address, str) or not address:
        problem = gateway.get("error") or _below(status, "data", "inference_status").get(
            "last_error"
        )
        detail = f": {str(problem)[:200]}" if problem else "; is anybody publishing to it?"
        raise SourceBusy(f"the stream does not play yet{detail}", retry_s=_ASK_EVERY_S)
    return address


def _below(value: object, *keys: str) -> dict[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
