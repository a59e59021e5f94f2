"""A worker in this process on a port of loopback, links to it, and streams of pictures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.engine.frames import H264, SMALL, decoded
from tests.engine.frames import frame as picture_frame
from tests.waiting import until

from streamlift.clock import Clock, MonotonicClock
from streamlift.cluster.backend import WorkerBackend
from streamlift.cluster.lane import LinkLane
from streamlift.cluster.link import Link
from streamlift.cluster.trust import Door, Trust
from streamlift.cluster.wire import convert
from streamlift.cluster.worker import WorkerService, make_server
from streamlift.engine import EngineBackend
from streamlift.errors import StreamliftError
from streamlift.frames import EncodedFrame, Frame, LaneOptions, Unencoded
from streamlift.metrics import Metrics

__all__ = ["CLOCK", "Reader", "Served", "coded_frames", "frames_now", "serving_worker"]

CLOCK: Clock = MonotonicClock()
TOKEN = "a token of the tests, long enough"


@dataclass(slots=True, eq=False)
class Served:
    """A running worker and what the tests look at."""

    service: WorkerService
    backend: EngineBackend
    server: Any
    port: int
    metrics: Metrics = field(default_factory=Metrics)
    links: list[Link] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def link(self, trust: Trust | None = None, *, units: bool = True) -> Link:
        """A link that is not yet running."""
        link = Link(
            self.address,
            self.address,
            trust or Trust(TOKEN),
            backend=self.backend.name,
            anchor="tests",
            units=units,
            clock=CLOCK,
            metrics=self.metrics,
        )
        self.links.append(link)
        return link

    async def linked(self, *links: Link) -> WorkerBackend:
        """A started backend with these links, or one; close it."""
        made = WorkerBackend(self.backend.name, "toy", clock=CLOCK)
        for link in links or (self.link(),):
            made.add(link)
        await made.start()
        return made


@asynccontextmanager
async def serving_worker(
    upscaler: str = "toy",
    *,
    token: str | None = TOKEN,
    slots: int = 4,
    versions: tuple[int, int] = (convert.PROTOCOL, convert.OLDEST),
    credentials: Any = None,
    **settings: Any,
) -> AsyncIterator[Served]:
    backend = EngineBackend(
        "ai",
        upscaler,
        slots=slots,
        settings=settings,
        preset="ultrafast",
        max_age_s=5.0,
        clock=CLOCK,
    )
    service = WorkerService(
        "w", backend, Door(token), clock=CLOCK, max_side=1280, label="H100", versions=versions
    )
    server = make_server(service)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    await backend.start()
    try:
        yield Served(service, backend, server, port)
    finally:
        await server.stop(0.2)
        await backend.aclose()


class Reader:
    """All that a lane gives back, and how it ended."""

    def __init__(self, lane: LinkLane) -> None:
        self.got: list[EncodedFrame | Unencoded] = []
        self.error: StreamliftError | None = None
        self.task = asyncio.ensure_future(self._read(lane))

    async def _read(self, lane: LinkLane) -> None:
        try:
            async for one in lane:
                self.got.append(one)
        except StreamliftError as error:
            self.error = error

    @property
    def pts(self) -> list[int]:
        return [one.pts for one in self.got]

    async def has(self, count: int) -> None:
        await until(lambda: len(self.got) >= count, f"{count} frames", show=lambda: self.pts)

    async def ended(self) -> StreamliftError | None:
        async with asyncio.timeout(10):
            await self.task
        return self.error


def frames_now(first: int, count: int) -> list[Frame]:
    """Pictures that have just arrived; no access units."""
    return [picture_frame(n, arrived_s=CLOCK.now_s()) for n in range(first, first + count)]


def coded_frames(count: int) -> list[Frame]:
    """Pictures of a publisher with their access units; only the first is a keyframe."""
    import dataclasses

    from tests.clips import picture

    made = decoded([picture(SMALL, n) for n in range(count)])
    return [dataclasses.replace(frame, arrived_s=CLOCK.now_s()) for frame in made]


def wanted(*, stream: str = "s", **changes: Any) -> LaneOptions:
    return LaneOptions(frozenset({H264}), stream=stream, fps=25.0, **changes)
