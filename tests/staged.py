"""A running service with several backends, one stamped stream, its viewer and its events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.machine import Late
from tests.serving import Served, light, serving, until
from tests.stamped import TINY, Shown, Source, StampViewer, lost, max_gap_ms, sending, viewing

from streamlift.config import BackendConfig, Config
from streamlift.frames import Size

__all__ = ["SLOWEST_GAP_MS", "Stage", "late", "stage", "too_long", "toy", "used"]

SLOWEST_GAP_MS = 250.0
"""What a viewer may wait for a picture on a machine that does other things as well."""


def toy(name: str, **knobs: Any) -> BackendConfig:
    """A backend that misbehaves as told; see `streamlift.upscalers.toy`."""
    return BackendConfig(name, "toy", slots=4, settings=knobs)


@dataclass(slots=True, eq=False)
class Stage:
    """A running service with one stamped stream `live`, its viewer, and its events."""

    service: Served
    http: httpx.AsyncClient
    source: Source
    viewer: StampViewer
    events: list[dict[str, Any]] = field(default_factory=list)

    def kinds(self, stream: str | None = None) -> list[str]:
        """The events so far, of one stream or of all."""
        return [e["event"] for e in self.events if stream in (None, e["stream"])]

    async def switch(self, **body: Any) -> httpx.Response:
        return await self.http.put("/api/v1/streams/live/backend", json=body)

    async def settled(self, backend: str, timeout_s: float = 15.0) -> None:
        """Wait until the stream is live on this backend."""

        async def there() -> bool:
            stream = await self.service.stream()
            return bool(stream["backend"] == backend and stream["state"] == "live")

        await until(there, f"{backend} to be shown", timeout_s=timeout_s, show=lambda: self.events)

    async def switched(self, backend: str, **body: Any) -> dict[str, Any]:
        """Switch, wait for the event that says it is done, and return that. Raises Late."""
        before = len(self.events)
        answer = await self.switch(backend=backend, **body)
        assert answer.status_code == 202, answer.text
        assert answer.json()["state"] == "switching"
        return await self.done(before, f"a switch to {backend}")

    async def done(self, before: int, what: str) -> dict[str, Any]:
        """The event of a switch that is done, after the first `before` events. Raises Late where
        the service gave it up because no picture came in time."""

        def ends() -> list[dict[str, Any]]:
            return [e for e in self.events[before:] if e["event"] in ("switched", "switch.aborted")]

        await until(lambda: bool(ends()), what, timeout_s=15, show=lambda: self.events[before:])
        end = ends()[0]
        if end["event"] == "switch.aborted" and "no picture" in end["reason"]:
            raise Late(f"{what}: {end['reason']}")
        assert end["event"] == "switched", end
        return end


@asynccontextmanager
async def stage(
    *backends: BackendConfig, fps: float = 25.0, source: Size | None = None, **changes: Any
) -> AsyncIterator[Stage]:
    """The stream begins on the first backend; all of them are ready. `changes` of `light`.

    `source`: the publisher's size, where another than twice that may come out.
    """
    config: Config = light(default_backend=backends[0].name, backends=backends, **changes)
    async with serving(config) as service, service.http() as http, _following(http) as events:
        await until(lambda: _ready(service), "all backends to be ready", timeout_s=60)
        made = Source(source or TINY)
        async with sending(service.whip(), made, fps=fps):
            await service.live()
            async with viewing(service.whep(), source) as viewer:
                await viewer.more(10)
                yield Stage(service, http, made, viewer, events)


async def late(on: Stage, shown: list[Shown]) -> list[str]:
    """Pictures lost, and gaps too long: nothing may be lost but what the machine was late for."""
    found = too_long(shown)
    if lost(shown):
        found.append(f"{lost(shown)} lost; {(await on.service.stream())['frames']['dropped']}")
    return found


def too_long(shown: list[Shown], longest_ms: float = SLOWEST_GAP_MS) -> list[str]:
    gap_ms = max_gap_ms(shown)
    return [f"a gap of {gap_ms:.0f} ms"] if gap_ms > longest_ms else []


def used(service: Served, name: str) -> int:
    return next(b.slots.used for b in service.parts.router.backends() if b.name == name)


def _ready(service: Served) -> bool:
    return all(b.state != "loading" for b in service.parts.router.backends())


@asynccontextmanager
async def _following(http: httpx.AsyncClient) -> AsyncIterator[list[dict[str, Any]]]:
    """The service's events over HTTP (server-sent events), as they come."""
    events: list[dict[str, Any]] = []
    connected = asyncio.Event()

    async def read() -> None:
        async with http.stream("GET", "/api/v1/events", timeout=None) as answer:
            kind = ""
            async for line in answer.aiter_lines():
                connected.set()
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    events.append({"event": kind, **json.loads(value)})

    reading = asyncio.create_task(read())
    try:
        await connected.wait()
        yield events
    finally:
        reading.cancel()
        await asyncio.wait([reading])
