"""What a push is given in tests: pictures and sound of our making, and servers that do as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.clips import SMALL, TICKS, coded_clip

from streamlift.clock import MonotonicClock
from streamlift.frames import Codec, CodedAudio, EncodedFrame, Rendition, Size
from streamlift.mailbox import Mailbox
from streamlift.media.remote.push import Push, PushState
from streamlift.media.remote.url_safety import HostRules
from streamlift.media.rtc.audio import AudioFeed
from streamlift.media.targets.line import open_line
from streamlift.metrics import Metrics

__all__ = ["Feed", "Server", "line", "pictures", "pushing", "serving", "waits_of"]

line = partial(open_line, rules=HostRules(["127.0.0.1"], "outputs.allowed_hosts"))
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def pictures(count: int = 5, size: Size = SMALL, start: int = 0) -> list[EncodedFrame]:
    """The first pictures of a clip; the first is a keyframe."""
    units = coded_clip(size, 50).units[:count]
    rendition = Rendition(Codec.H264, 1_500_000, "Baseline")
    now_s = MonotonicClock().now_s()
    return [
        EncodedFrame((start + n) * TICKS, size, rendition, n == 0, unit, now_s + n * 0.04)
        for n, unit in enumerate(units)
    ]


@dataclass(eq=False)
class Feed:
    """Fits `push.Pictures`: what is put, until it ends. Counts what is asked of it."""

    frames: Mailbox[EncodedFrame] = field(default_factory=lambda: Mailbox(1000))
    sound: AudioFeed = field(default_factory=lambda: AudioFeed(1000))
    keyframes_asked: int = 0
    watched: int = 0
    skipped: int = 0

    def __aiter__(self) -> AsyncIterator[EncodedFrame]:
        return self

    async def __anext__(self) -> EncodedFrame:
        return await anext(self.frames)

    def request_keyframe(self) -> None:
        self.keyframes_asked += 1

    def put(self, frames: Sequence[EncodedFrame]) -> None:
        for frame in frames:
            self.frames.put(frame)

    @contextmanager
    def watch(self) -> Iterator[Feed]:
        self.watched += 1
        yield self

    @contextmanager
    def listen(self) -> Iterator[AudioFeed]:
        yield self.sound

    def hear(self, packets: Sequence[CodedAudio]) -> None:
        for packet in packets:
            self.sound.put(packet)


@dataclass(frozen=True)
class Wait:
    """Before another try: how long, and why it is needed."""

    seconds: float
    reason: str


def waits_of(
    make: Callable[..., Push], *arguments: Any, tries: int = 1000, **options: Any
) -> tuple[Push, list[Wait]]:
    """A push whose waits take no time, and what they were; after so many `tries` it rests."""
    waits: list[Wait] = []

    async def sleep(seconds: float) -> None:
        waits.append(Wait(seconds, push.reason))
        if len(waits) >= tries:
            await asyncio.Event().wait()
        await asyncio.sleep(0.01)

    push = make(
        "live", *arguments, clock=MonotonicClock(), metrics=Metrics(), sleep=sleep, **options
    )
    return push, waits


@asynccontextmanager
async def pushing(push: Push, feed: Feed, *, sound: bool = False) -> AsyncIterator[Push]:
    """Run it until the block ends; what it raises is its own affair (see its state)."""
    running = asyncio.create_task(push.run(feed.watch, feed.listen, lambda: sound))
    try:
        yield push
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await running
        assert push.state in (PushState.CLOSED, PushState.REFUSED)


@dataclass(eq=False)
class Server:
    """`connections` counts those that were taken."""

    port: int = 0
    connections: int = 0


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[Server]:
    """A server whose every connection is served so; a client that goes is nothing to tell of."""
    served = Server()
    running: set[asyncio.Task[Any]] = set()
    writers: set[asyncio.StreamWriter] = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        writers.add(writer)
        served.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await serve(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        running.discard(task)

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        while running:
            await asyncio.wait(running)
