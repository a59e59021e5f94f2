"""The control API as methods: streams, backends, links, events, pulls, outputs, sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, Unpack

import httpx

from streamlift.client import events
from streamlift.client.calls import Calls, decoded, part_of
from streamlift.client.problems import problem_of
from streamlift.client.publishing import Publication, PublishOptions, publish
from streamlift.client.reading import read
from streamlift.client.shapes import (
    About,
    Backend,
    Event,
    File,
    Health,
    Link,
    Output,
    Readiness,
    Session,
    Source,
    Stream,
    Target,
)
from streamlift.client.watching import Watching, WatchOptions, watch
from streamlift.errors import reason_of
from streamlift.media.remote.http import Unreachable

__all__ = ["Client"]


class Client(Calls):
    """One service; an async context manager.

    All methods raise `ApiError` (see `problems`) when the service refuses, `Unreachable` when it
    does not answer, `UnexpectedAnswer` when it answers with something else than this client knows.
    Names of streams are 1 to 64 letters, digits, `-` and `_`.
    """

    # ---- streams ----

    async def streams(self) -> tuple[Stream, ...]:
        """All open streams that the token is for."""
        return await self._list(Stream, "/api/v1/streams", "streams")

    async def stream(self, name: str) -> Stream:
        """One stream: state, rates, latency by stage, frame counts."""
        return read(Stream, await self._get(_stream(name)))

    async def change(
        self,
        name: str,
        *,
        bitrate_bps: int | None = None,
        stabilise: Literal["off", "lite", "strong"] | None = None,
        idle: Literal["run", "pause"] | None = None,
        target: Target | Literal["own"] | None = None,
    ) -> Stream:
        """Change a running stream; what is None stays as it is.

        `target`: the size that comes out, "own" for the backend's. The event `switched` tells when
        another one is there.
        """
        body = _given(bitrate_bps=bitrate_bps, stabilise=stabilise, idle=idle)
        if target is not None:
            body["target"] = None if target == "own" else _target(target)
        return read(Stream, await self._json("PATCH", _stream(name), body))

    async def switch(
        self,
        name: str,
        backend: str | None = None,
        *,
        policy: Literal["auto", "quality", "speed"] | None = None,
        mode: Literal["low_latency", "constant_latency"] | None = None,
    ) -> Stream:
        """Move a stream to a backend, or let a policy choose; exactly one of the two.

        Returns at once; the event `switched` tells when it is done and what gap viewers saw.
        """
        body = _given(backend=backend, policy=policy, mode=mode)
        return read(Stream, await self._json("PUT", f"{_stream(name)}/backend", body))

    async def close(self, name: str) -> None:
        """End a stream with its publisher and all its viewers."""
        await self._send("DELETE", _stream(name))

    async def snapshot(self, name: str, view: Literal["upscaled", "source"] = "upscaled") -> bytes:
        """The newest picture, as a JPEG file."""
        answer = await self._send("GET", f"{_stream(name)}/snapshot.jpg", params={"view": view})
        return answer.content

    async def backends(self) -> tuple[Backend, ...]:
        """The configured backends: what they can do now, and why not."""
        return await self._list(Backend, "/api/v1/backends", "backends")

    async def fetch_weights(self, backend: str) -> Backend:
        """Have the service fetch the weights that a backend lacks; it is usable when that is done.

        The event `weights` and `Backend.download` tell how it goes.
        """
        return read(Backend, decoded(await self._send("POST", _weights(backend))))

    async def stop_weights(self, backend: str) -> None:
        """Stop that; what came stays."""
        await self._send("DELETE", _weights(backend))

    # ---- links and events ----

    async def add_link(
        self, name: str, right: Literal["view", "publish"] = "view", *, ttl_s: int = 600
    ) -> Link:
        """A link to one stream for 1 s to a week; its token is in the fragment of the address."""
        body = {"right": right, "ttl_s": ttl_s}
        return read(Link, await self._json("POST", f"{_stream(name)}/links", body))

    async def end_link(self, name: str, link: str) -> None:
        """Take a link back; what was begun by it ends within 5 s."""
        await self._send("DELETE", f"{_stream(name)}/links/{part_of(link)}")

    def events(
        self, stream: str | None = None, *, after: int | None = None
    ) -> AsyncIterator[Event]:
        """What happens from now on, or after the event numbered `after`, as far as it is kept.

        Goes on through lost connections and restarts of the service, after 1, 2, 4 .. 30 s, with
        what was missed, as far as it is kept. Raises ApiError when the service refuses for good.
        """
        return events.follow(self._http, stream, after)

    # ---- streams that the service fetches itself ----

    async def pull_whep(self, name: str, url: str, *, token: str | None = None) -> Stream:
        """Fetch a stream from a WHEP address, with a token if it needs one; tried for ever."""
        return await self._pull(name, {"kind": "whep", "url": url, **_given(token=token)})

    async def pull_url(self, name: str, url: str, *, loop: bool = False) -> Stream:
        """Fetch a stream from an address that FFmpeg reads (RTSP, RTMP, HLS, UDP, a file), where
        the service allows it; `loop`: a file again and again."""
        return await self._pull(name, {"kind": "url", "url": url, "loop": loop})

    async def pull_daydream(self, name: str, stream_id: str) -> Stream:
        """Fetch a stream of daydream.live; the key is in the service's configuration."""
        return await self._pull(name, {"kind": "daydream", "stream_id": stream_id})

    async def pull_scope(
        self,
        name: str,
        url: str = "http://localhost:8000",
        *,
        pipeline: str = "longlive",
        prompts: Sequence[str | tuple[str, float]] = (),
        load_params: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Stream:
        """Load a pipeline of a Scope server, start it, and fetch its pictures.

        `prompts`: texts, or texts with their weights. `load_params` and `parameters`: Scope's own.
        """
        source = {
            "kind": "scope",
            "url": url,
            "pipeline": pipeline,
            "prompts": _prompts(prompts),
            "load_params": dict(load_params or {}),
            "parameters": dict(parameters or {}),
        }
        return await self._pull(name, source)

    async def source(self, name: str) -> Source:
        """Where a stream is fetched from and how that goes; never the token."""
        return read(Source, await self._get(f"{_stream(name)}/source"))

    async def change_source(
        self,
        name: str,
        *,
        prompts: Sequence[str | tuple[str, float]] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Source:
        """Pass prompts and parameters on to Scope; they hold for later connections, too."""
        body: dict[str, Any] = {"parameters": dict(parameters or {})}
        if prompts is not None:
            body["prompts"] = _prompts(prompts)
        return read(Source, await self._json("PUT", f"{_stream(name)}/source", body))

    async def _pull(self, name: str, source: Mapping[str, Any]) -> Stream:
        body = {"name": name, "source": source}
        return read(Stream, await self._json("POST", "/api/v1/streams", body))

    # ---- outputs ----

    async def outputs(self, name: str) -> tuple[Output, ...]:
        """Where a stream goes beside its viewers: pushes and recordings."""
        return await self._list(Output, f"{_stream(name)}/outputs", "outputs")

    async def add_output(
        self,
        name: str,
        url: str | None = None,
        *,
        type: Literal["whip", "rtmp", "rtsp", "v4l2"] = "whip",
        token: str | None = None,
        device: str | None = None,
    ) -> Output:
        """Send the upscaled stream elsewhere too, to `url` or (v4l2) to `device`; tried again and
        again until it is ended. `token`: bearer token, stream key or password."""
        body = {"type": type, **_given(url=url, token=token, device=device)}
        return read(Output, await self._json("POST", f"{_stream(name)}/outputs", body))

    async def output(self, name: str, output: str) -> Output:
        """One output."""
        return read(Output, await self._get(f"{_stream(name)}/outputs/{part_of(output)}"))

    async def end_output(self, name: str, output: str) -> None:
        """End a push, or finish a recording."""
        await self._send("DELETE", f"{_stream(name)}/outputs/{part_of(output)}")

    # ---- files instead of streams ----

    async def upload(
        self,
        name: str,
        content: bytes | AsyncIterable[bytes],
        *,
        upscaler: Literal["compact", "bicubic"] = "compact",
        scale: float | None = None,
        stabilise: Literal["off", "lite", "strong"] = "off",
    ) -> File:
        """Have a file upscaled, beside the streams; the ending of `name` tells its kind."""
        query = _given(name=name, upscaler=upscaler, scale=scale, stabilise=stabilise)
        answer = await self._send(
            "POST",
            "/api/v1/files",
            params=query,
            content=content,
            headers={"Content-Type": "application/octet-stream"},
            timeout=httpx.Timeout(self._timeout_s, write=None),
        )
        return read(File, decoded(answer))

    async def files(self) -> tuple[File, ...]:
        """All files that are there, oldest first."""
        return await self._list(File, "/api/v1/files", "files")

    async def file(self, file: str) -> File:
        """How far one is."""
        return read(File, await self._get(f"/api/v1/files/{part_of(file)}"))

    async def save_result(self, file: str, path: Path) -> int:
        """Write the upscaled file there; returns its bytes. Raises OSError, too."""
        request = self._http.build_request("GET", f"/api/v1/files/{part_of(file)}/result")
        try:
            answer = await self._http.send(request, stream=True)
            try:
                if answer.is_error:
                    await answer.aread()
                    raise problem_of(answer)
                return await _written(answer, path)
            finally:
                await answer.aclose()
        except httpx.HTTPError as error:
            raise Unreachable(f"cannot reach {self.url}: {reason_of(error)}") from error

    async def remove_file(self, file: str) -> None:
        """Forget a file and its result; if it is worked on, that ends."""
        await self._send("DELETE", f"/api/v1/files/{part_of(file)}")

    # ---- sessions, health ----

    async def about(self) -> About:
        """Doors that are open, and what the control token may do."""
        return read(About, await self._get("/api/v1/about"))

    async def session(self, session: str) -> Session:
        """What is known of one WebRTC session."""
        return read(Session, await self._get(f"/api/v1/sessions/{part_of(session)}"))

    async def end_session(self, session: str) -> None:
        """End a session; its peer is disconnected."""
        await self._send("DELETE", f"/sessions/{part_of(session)}")

    async def health(self) -> Health:
        """The process is alive."""
        return read(Health, await self._get("/healthz"))

    async def ready(self) -> Readiness:
        """Whether new streams can be taken, and why not."""
        answer = await self._answer("GET", "/readyz")
        if answer.status_code not in (200, 503):
            raise problem_of(answer)
        return read(Readiness, decoded(answer))

    async def metrics(self) -> str:
        """Prometheus text."""
        return (await self._send("GET", "/metrics")).text

    # ---- media ----

    def publish(
        self, name: str, **options: Unpack[PublishOptions]
    ) -> AbstractAsyncContextManager[Publication]:
        """As `publish`, to a stream of this service, with this client's token."""
        options.setdefault("token", self._token)
        return publish(f"{self.url}/whip/{part_of(name)}", **options)

    def watch(
        self,
        name: str,
        view: Literal["upscaled", "source"] = "upscaled",
        *,
        backend: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> AbstractAsyncContextManager[Watching]:
        """As `watch`, of a stream of this service, with this client's token.

        `backend`: its picture, in step with the shown one; needs the right to control too.
        """
        options.setdefault("token", self._token)
        query = f"view={view}" if backend is None else f"backend={part_of(backend)}"
        return watch(f"{self.url}/whep/{part_of(name)}?{query}", **options)


async def _written(answer: httpx.Response, path: Path) -> int:
    written = 0
    target = await asyncio.to_thread(path.open, "wb")
    try:
        async for piece in answer.aiter_bytes():
            written += await asyncio.to_thread(target.write, piece)
    finally:
        await asyncio.to_thread(target.close)
    return written


def _weights(backend: str) -> str:
    return f"/api/v1/backends/{part_of(backend)}/weights"


def _stream(name: str) -> str:
    return f"/api/v1/streams/{part_of(name)}"


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _target(target: Target) -> dict[str, Any]:
    size = None if target.size is None else list(target.size)
    return _given(scale=target.scale, size=size, fit=target.fit)


def _prompts(prompts: Sequence[str | tuple[str, float]]) -> list[Any]:
    return [p if isinstance(p, str) else {"text": p[0], "weight": p[1]} for p in prompts]
