"""A stream between a fake publisher and viewers, with several fake backends."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.routing.fakes import H264, FakeBackend, FakePublisher, Knobs, stream_frames
from tests.routing.virtual_time import LoopClock, ended, settle

from streamlift.frames import EncodedFrame
from streamlift.metrics import Metrics
from streamlift.routing.backends import BackendTable
from streamlift.routing.broadcast import Cursor
from streamlift.routing.events import Event, EventKind, EventLog
from streamlift.routing.policy import Policy
from streamlift.routing.settings import StreamSettings
from streamlift.routing.stream import Slate, Stream

BASIC = StreamSettings(H264)
CHUNKED = Knobs(delay_s=0.15, first=1, step=8, lag=4)


class Seen:
    """A viewer: all frames of a cursor, until it ends."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.frames: list[EncodedFrame] = []
        self.times_s: list[float] = []
        self.task = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        with self.cursor:
            async for one in self.cursor:
                self.frames.append(one)
                self.times_s.append(asyncio.get_running_loop().time())

    @property
    def pts(self) -> list[int]:
        return [one.pts for one in self.frames]

    @property
    def sources(self) -> list[str]:
        """The backend of each frame."""
        return [one.data.decode().split()[0] for one in self.frames]

    def gaps(self, after_s: float = 0.0) -> list[float]:
        times = [t for t in self.times_s if t >= after_s]
        return [b - a for a, b in itertools.pairwise(times)]

    def assert_decodable(self) -> None:
        """Every change of lane is at a keyframe, and pts only rise."""
        for before, now in zip(self.frames, self.frames[1:], strict=False):
            assert now.pts > before.pts
            if now.data != before.data:
                assert now.keyframe


class Stage:
    """What a test holds in its hands."""

    def __init__(
        self,
        names: Sequence[str],
        settings: StreamSettings,
        slate: Slate | None = None,
        policy: Policy = Policy.FIXED,
    ) -> None:
        self.clock = LoopClock()
        self.backends = {name: FakeBackend(self.clock, name) for name in names}
        self.table = BackendTable(self.backends.values(), clock=self.clock)
        self.metrics = Metrics()
        self.events = EventLog(self.clock.now_s)
        self.stream = Stream(
            "cam",
            self.table,
            names[0],
            clock=self.clock,
            metrics=self.metrics,
            settings=settings,
            events=self.events,
            slate=slate,
            policy=policy,
        )
        self.publisher = FakePublisher()
        self._source: asyncio.Task[None] | None = None

    @property
    def viewer(self) -> Seen:
        return self._viewer

    def watch(self) -> Seen:
        self._viewer = Seen(self.stream.watch())
        return self._viewer

    def kinds(self) -> list[EventKind]:
        return [event.kind for event in self.log()]

    def log(self, kind: EventKind | None = None) -> list[Event]:
        return [e for e in self.events._events if kind is None or e.kind is kind]


@asynccontextmanager
async def live(
    *names: str,
    seconds: float = 60.0,
    fps: float = 25.0,
    burst: int = 1,
    knobs: Knobs | None = None,
    settings: StreamSettings = BASIC,
    slate: Slate | None = None,
) -> AsyncIterator[Stage]:
    """A stream that has been live for two seconds on the first backend, with one viewer.

    `knobs` are the first backend's. The publisher goes on for `seconds` or until the end.
    """
    stage = Stage(names, settings, slate)
    if knobs is not None:
        stage.backends[names[0]].knobs = knobs
    owner = asyncio.ensure_future(stage.stream.run())
    await settle()
    viewer = stage.watch()
    done = asyncio.ensure_future(stage.stream.publish(stage.publisher))
    source = asyncio.ensure_future(
        stream_frames(stage.publisher, stage.clock, int(seconds * fps), fps=fps, burst=burst)
    )
    await asyncio.sleep(2.0)
    assert viewer.frames
    try:
        yield stage
    finally:
        source.cancel()
        stage.publisher.end()
        await asyncio.wait([done])
        await stage.stream.close("test over")
        await ended(owner)
        await ended(viewer.task)
