"""Pulling from a Daydream Scope server: it generates, we show. Its own JSON signalling, no WHEP.

Each connection starts a new generation on the pipeline that is loaded there (measured against
daydreamlive/scope 0.2.4). A receiving-only offer without a graph would be answered, connect, and
never bring a frame.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from aiortc import RTCDataChannel

from streamlift.clock import Clock
from streamlift.config import IceConfig, IceServer
from streamlift.errors import ConfigError, MediaError, StreamliftError
from streamlift.frames import Codec
from streamlift.media.remote.fetch import Fetcher, Reply
from streamlift.media.remote.pull import SourceAway, SourceBusy, SourceLost
from streamlift.media.remote.pull_whep import permitted, shown_url
from streamlift.media.remote.pulled import Pulled
from streamlift.media.remote.url_safety import HostRules
from streamlift.tasks import to_its_end

__all__ = ["PROBE_S", "ScopeSource", "initial_parameters"]

logger = logging.getLogger(__name__)

FIRST_FRAME_S = 120.0
"""The first block may be compiled while we wait."""

STALL_S = 5.0
LOAD_S = 600.0
_POLL_S = 0.5
_OLD_STATUS_S = 1.0
PROBE_S = 2.0
"""How often a Scope that does not answer is asked whether it is back."""
_JSON = "application/json"
_ONCE = frozenset({"reset_cache", "transition"})

Parameters = Mapping[str, Any]


class ScopeSource:
    """Fits `pull.Source`: a server, a pipeline to load there, and what to tell it.

    `parameters` are Scope's own, `prompts` among them; they may be changed while it plays.
    """

    kind = "scope"
    first_frame_s = FIRST_FRAME_S
    stall_s = STALL_S

    def __init__(
        self,
        stream: str,
        url: str,
        pipeline: str,
        *,
        load_params: Parameters,
        parameters: Parameters,
        fetcher: Callable[[], Fetcher],
        rules: HostRules,
        ice: IceConfig,
        max_side: int,
        clock: Clock,
    ) -> None:
        """Raises ConfigError when the URL is not allowed."""
        rules.check(url)
        self._stream = stream
        self._url = url.rstrip("/")
        self._pipeline = pipeline
        self._load_params = load_params
        self._parameters = dict(parameters)
        self._fetcher = fetcher
        self._rules = rules
        self._ice = ice
        self._max_side = max_side
        self._clock = clock
        self.doing = ""
        self._channel: RTCDataChannel | None = None
        self._unsent: list[Parameters] = []
        """Changes that came after the offer and before the channel was open."""
        self._stopped = ""

    def describe(self) -> Mapping[str, Any]:
        return {
            "url": shown_url(self._url),
            "pipeline": self._pipeline,
            "parameters": dict(self._parameters),
        }

    def set_parameters(self, changes: Parameters) -> None:
        """Pass changes on at once where it plays; the lasting ones hold for later connections."""
        self._parameters.update({k: v for k, v in changes.items() if k not in _ONCE})
        target = changes.get("transition")
        if isinstance(target, Mapping) and "target_prompts" in target:
            self._parameters["prompts"] = target["target_prompts"]
        if self._channel is None:
            return
        if self._channel.readyState == "open":
            self._channel.send(json.dumps(changes))
        else:
            self._unsent.append(changes)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Pulled]:
        async with self._fetcher() as http:
            try:
                await self._load(http)
            finally:
                self.doing = ""
            pulled = Pulled(
                f"stream {self._stream}",
                await self._ice_config(http),
                codecs=(Codec.H264,),
                audio=False,
                max_side=self._max_side,
                clock=self._clock,
            )
            session: str | None = None
            try:
                # It must be in the offer, or Scope has no way to tell us anything.
                self._channel = pulled.peer.connection.createDataChannel("parameters", ordered=True)
                self._channel.on("open", self._send_unsent)
                self._channel.on("message", lambda text: self._notified(pulled, text))
                session = await self._connect(http, pulled)
                yield pulled
                if self._stopped:
                    raise SourceLost(f"Scope stopped the stream: {self._stopped}")
            finally:
                self._channel, self._stopped, self._unsent = None, "", []
                await to_its_end(self._finish(http, pulled, session))

    async def _load(self, http: Fetcher) -> None:
        """Have the pipeline loaded. Raises SourceAway when Scope does not answer, MediaError when
        it cannot load."""
        try:
            await self._call(http, "GET", "/health")
        except ConfigError:
            raise  # it is we who do not want to go there
        except StreamliftError as error:
            raise SourceAway(f"Scope does not answer: {error}", retry_s=PROBE_S) from error
        status = await self._status(http)
        if status.get("status") == "loaded" and status.get("pipeline_id") == self._pipeline:
            return
        node = {
            "node_id": self._pipeline,
            "pipeline_id": self._pipeline,
            "load_params": dict(self._load_params),
        }
        await self._call(http, "POST", "/api/v1/pipeline/load", {"pipelines": [node]})
        asked_s = self._clock.now_s()
        while (waited_s := self._clock.now_s() - asked_s) < LOAD_S:
            status = await self._status(http)
            if status.get("status") == "error":
                raise MediaError(f"Scope cannot load {self._pipeline}: {status.get('error')}")
            # Loading may not have begun: what is loaded may still be what was loaded before.
            ours = status.get("pipeline_id") == self._pipeline or waited_s >= _OLD_STATUS_S
            if status.get("status") == "loaded" and ours:
                return
            stage = str(status.get("loading_stage") or "")[:80]
            self.doing = f"Scope loads {self._pipeline}" + (f": {stage}" if stage else "")
            await asyncio.sleep(_POLL_S)
        raise MediaError(f"Scope did not load {self._pipeline} within {LOAD_S:g} s")

    async def _status(self, http: Fetcher) -> dict[str, Any]:
        return await self._call(http, "GET", "/api/v1/pipeline/status")

    async def _ice_config(self, http: Fetcher) -> IceConfig:
        if self._ice.servers:
            return self._ice
        answer = await self._call(http, "GET", "/api/v1/webrtc/ice-servers")
        return replace(self._ice, servers=permitted(_servers(answer), self._rules))

    async def _connect(self, http: Fetcher, pulled: Pulled) -> str:
        offer = {
            "sdp": await pulled.peer.offer(),
            "type": "offer",
            "initialParameters": initial_parameters(self._pipeline, self._parameters),
        }
        # What lasts is in the offer; what does not was for the connection before.
        self._unsent.clear()
        answer = await self._call(http, "POST", "/api/v1/webrtc/offer", offer)
        sdp, session = answer.get("sdp"), answer.get("sessionId")
        if not isinstance(sdp, str) or not isinstance(session, str):
            raise MediaError("Scope's answer lacks sdp or sessionId", found=sorted(answer))
        await pulled.accept(sdp)
        await pulled.peer.connected()
        return session

    def _notified(self, pulled: Pulled, text: str | bytes) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            return  # not for us
        if isinstance(message, dict) and message.get("type") == "stream_stopped":
            self._stopped = str(message.get("error_message") or "no reason given")[:200]
            pulled.video.end()

    def _send_unsent(self) -> None:
        unsent, self._unsent = self._unsent, []
        for changes in unsent:
            if self._channel is not None:
                self._channel.send(json.dumps(changes))

    async def _finish(self, http: Fetcher, pulled: Pulled, session: str | None) -> None:
        await pulled.aclose()
        if session is None:
            return
        try:
            await http.request("DELETE", f"{self._url}/api/v1/webrtc/offer/{session}")
        except StreamliftError as error:
            logger.debug("stream %s: a session was left to Scope: %s", self._stream, error)

    async def _call(
        self, http: Fetcher, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        content = None if body is None else json.dumps(body)
        kind = None if body is None else _JSON
        reply = await http.request(method, self._url + path, content=content, content_type=kind)
        return _read(reply, path)


def initial_parameters(pipeline: str, parameters: Parameters) -> dict[str, Any]:
    """What makes a receiving-only offer work: text mode, and the graph from pipeline to sink.

    `parameters` win, so a graph of one's own may be given.
    """
    edge = {
        "from": pipeline,
        "from_port": "video",
        "to_node": "output",
        "to_port": "video",
        "kind": "stream",
    }
    nodes = [
        {"id": pipeline, "type": "pipeline", "pipeline_id": pipeline},
        {"id": "output", "type": "sink"},
    ]
    return {
        "input_mode": "text",
        "pipeline_ids": [pipeline],
        "graph": {"nodes": nodes, "edges": [edge]},
        **parameters,
    }


def _read(reply: Reply, path: str) -> dict[str, Any]:
    try:
        answer = json.loads(reply.text) if reply.text else {}
    except ValueError as error:
        raise MediaError(f"{reply.url.host}{path} did not answer with JSON: {error}") from error
    answer = answer if isinstance(answer, dict) else {}
    detail = str(answer.get("detail", ""))[:200]
    if reply.status == 400 and path.endswith("/offer"):
        raise SourceBusy(f"Scope is not ready: {detail}", retry_s=_POLL_S)
    if reply.status >= 300:
        raise MediaError(f"{reply.url.host}{path} answered {reply.status}: {detail}")
    return answer


def _servers(answer: Mapping[str, Any]) -> list[IceServer]:
    found: list[IceServer] = []
    for entry in _list(answer.get("iceServers")):
        if isinstance(entry, Mapping):
            urls = entry.get("urls")
            for url in [urls] if isinstance(urls, str) else _list(urls):
                name, secret = entry.get("username"), entry.get("credential")
                found.append(IceServer(str(url), name and str(name), secret and str(secret)))
    return found


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
