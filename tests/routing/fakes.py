"""Small working publishers, backends and lanes, driven by the test."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import numpy as np

from streamlift.clock import Clock
from streamlift.errors import NoCapacity, NotReady
from streamlift.frames import (
    BackendInfo,
    BackendState,
    Codec,
    CodedAudio,
    CodedVideo,
    Colour,
    EncodedFrame,
    Frame,
    LaneOptions,
    Planes,
    Rendition,
    Size,
    Slots,
    StageTimes,
    Target,
    Unencoded,
)
from streamlift.routing.ports import IngestCounts

SMALL = Size(16, 16)
H264 = Rendition(Codec.H264, 6_000_000)


def planes(size: Size) -> Planes:
    half = ((size.height + 1) // 2, (size.width + 1) // 2)
    return Planes(
        np.zeros((size.height, size.width), np.uint8),
        np.zeros(half, np.uint8),
        np.zeros(half, np.uint8),
    )


def frame(
    pts: int,
    arrived_s: float = 0.0,
    size: Size = SMALL,
    *,
    keyframe: bool | None = None,
    number: int = 0,
) -> Frame:
    coded = None
    if keyframe is not None:
        coded = CodedVideo(Codec.H264, b"lr", keyframe, number)
    return Frame(pts, size, planes(size), Colour(), arrived_s, coded)


def encoded(
    pts: int,
    *,
    keyframe: bool = False,
    rendition: Rendition = H264,
    arrived_s: float = 0.0,
    data: bytes = b"hr",
    size: Size = SMALL,
) -> EncodedFrame:
    return EncodedFrame(pts, size.times(2), rendition, keyframe, data, arrived_s)


class FakePublisher:
    """Frames are pushed by the test; ends at `end` or `aclose`, raises what `fail` was given."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Frame | Exception | None] = asyncio.Queue()
        self.counts = IngestCounts()
        self.absence: str | None = None
        self.keyframes_asked = 0
        self.closed_with: str | None = None

    @property
    def audio(self) -> AsyncIterator[CodedAudio] | None:
        return None

    def push(self, item: Frame) -> None:
        self.counts = IngestCounts(self.counts.received + 1, self.counts.decoded + 1)
        self._queue.put_nowait(item)

    def fail(self, error: Exception) -> None:
        self._queue.put_nowait(error)

    def end(self) -> None:
        self._queue.put_nowait(None)

    def __aiter__(self) -> AsyncIterator[Frame]:
        return self

    async def __anext__(self) -> Frame:
        item = await self._queue.get()
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, Exception):
            raise item
        return item

    def request_keyframe(self) -> None:
        self.keyframes_asked += 1

    async def aclose(self, reason: str) -> None:
        self.closed_with = reason
        self.end()


@dataclass(slots=True)
class Knobs:
    """How lanes of a fake backend behave."""

    delay_s: float = 0.010
    jitter_s: float = 0.0  # added to every third frame
    first: int = 1  # frames before the first output
    step: int = 1  # frames per step after that
    lag: int = 0  # frames still owed after a step
    opening_s: float = 0.0
    fail_at: int | None = None  # raise when the n-th frame of a lane is to be delivered
    hang_at: int | None = None
    lose: frozenset[int] = frozenset()  # numbers of frames that are never delivered
    lose_every: int = 0  # every n-th frame is never delivered
    error: Exception = field(default_factory=lambda: RuntimeError("toy failure"))


class FakeLane:
    """Delivers each frame of a step `delay_s` after the step is complete.

    An encoded frame's data name the backend and the lane, by its number there.
    """

    def __init__(
        self, clock: Clock, backend: FakeBackend, options: LaneOptions, knobs: Knobs
    ) -> None:
        self._clock = clock
        self._backend = backend
        self._knobs = knobs
        self._inbox: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._keyframe: set[Rendition] = set()
        self._known: frozenset[Rendition] = frozenset()
        self.number = len(backend.lanes)
        self.options = options
        self.wanted = options.renditions
        self.offered: list[int] = []
        self._begin_after = -1  # pts; nothing before is encoded, after a time without renditions
        self.delivered = 0
        self.keyframes_made = 0
        self.closed = False
        self.parked = 0
        self.degraded = False
        self.can_spend_less = False
        self.upscaled = 0
        self.dropped: Counter[str] = Counter()
        self.refuses: frozenset[Target | None] = frozenset()  # what it goes on without

    def offer(self, item: Frame) -> bool:
        self.offered.append(item.pts)
        self._inbox.put_nowait(item)
        return True

    def finish(self) -> None:
        self._inbox.put_nowait(None)

    def set_renditions(self, wanted: frozenset[Rendition]) -> None:
        if not self.wanted and wanted:
            self._begin_after = self.offered[-1] if self.offered else -1
        self.wanted = wanted

    def request_keyframe(self) -> None:
        self._keyframe |= self.wanted

    leaving = False

    @property
    def stuck_s(self) -> float:
        return float("inf")  # nobody looks inside: only its silence tells

    def park(self) -> None:
        self.parked += 1

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            self._backend.used -= 1

    async def __aiter__(self) -> AsyncIterator[EncodedFrame | Unencoded]:
        knobs = self._knobs
        taken: list[Frame] = []
        steps = 0
        last = False
        while not last:
            item = await self._inbox.get()
            last = item is None
            if item is not None:
                taken.append(item)
            step = knobs.first if steps == 0 else knobs.step
            due = step + (knobs.lag if steps else 0)
            if not last and len(taken) < due:
                continue
            steps += 1
            late_s = knobs.jitter_s if steps % 3 == 0 else 0.0
            await asyncio.sleep(knobs.delay_s + late_s)
            ready = taken if last else taken[: max(1, len(taken) - knobs.lag)]
            taken = taken[len(ready) :]
            for out in ready:
                self._misbehave()
                self.delivered += 1
                self.upscaled += 1
                if self.delivered - 1 in knobs.lose or (
                    knobs.lose_every and self.delivered % knobs.lose_every == 0
                ):
                    self.dropped["stale"] += 1
                    continue
                for one in self._encode(out):
                    yield one
            await self._hang_if_told()

    def _misbehave(self) -> None:
        if self.delivered == self._knobs.fail_at:
            raise self._knobs.error

    async def _hang_if_told(self) -> None:
        if self._knobs.hang_at is not None and self.delivered >= self._knobs.hang_at:
            await asyncio.Event().wait()

    def _encode(self, out: Frame) -> list[EncodedFrame | Unencoded]:
        if not self.wanted or out.pts <= self._begin_after:
            return [Unencoded(out.pts)]
        made: list[EncodedFrame | Unencoded] = []
        for rendition in sorted(self.wanted, key=lambda r: (r.codec, r.thin)):
            keyframe = rendition in self._keyframe or rendition not in self._known
            refused = rendition.target in self.refuses
            target = None if refused else rendition.target
            self._keyframe.discard(rendition)
            self.keyframes_made += keyframe
            made.append(
                EncodedFrame(
                    out.pts,
                    out.size.times(2) if target is None else target.output(out.size),
                    replace(rendition, target=target),
                    keyframe,
                    f"{self._backend.name} {self.number}".encode(),
                    out.arrived_s,
                    StageTimes(upscale_s=self._knobs.delay_s),
                )
            )
        self._known = frozenset(self.wanted)
        return made


class FakeBackend:
    """Opens FakeLanes; `state` and `knobs` may be changed by the test at any time."""

    def __init__(self, clock: Clock, name: str = "fake", slots: int = 4) -> None:
        self._clock = clock
        self.name = name
        self.total = slots
        self.used = 0
        self.state = BackendState.READY
        self.reason = ""
        self.upscaler = "bicubic"
        self.fps: float | None = None
        self.knobs = Knobs()
        self.lanes: list[FakeLane] = []
        self.hung: list[object] = []
        self.probed = 0
        self.to_blame = True  # whether `knobs` are its own fault, not what streams send
        self.started = self.closed = False

    async def start(self) -> None:
        self.started = True

    async def aclose(self) -> None:
        self.closed = True

    async def probe(self) -> None:
        """As long as 64 frames of a lane; raises what a lane would raise."""
        self.probed += 1
        await asyncio.sleep(0.1)
        if self.knobs.fail_at is not None and self.knobs.fail_at < 64 and self.to_blame:
            raise self.knobs.error

    def lane_hung(self, lane: object) -> None:
        self.hung.append(lane)

    def info(self) -> BackendInfo:
        slots = Slots(self.total, self.used)
        return BackendInfo(
            self.name, self.upscaler, "cpu", self.state, self.reason, self.fps, slots
        )

    async def open_lane(self, size: Size, options: LaneOptions) -> FakeLane:
        if self.state is not BackendState.READY:
            raise NotReady(f"{self.name} is {self.state}")
        if self.used >= self.total:
            raise NoCapacity(f"all {self.total} slots of {self.name} are taken")
        self.used += 1
        try:
            await asyncio.sleep(self.knobs.opening_s)
        except asyncio.CancelledError:
            self.used -= 1
            raise
        lane = FakeLane(self._clock, self, options, self.knobs)
        self.lanes.append(lane)
        return lane


async def stream_frames(
    publisher: FakePublisher,
    clock: Clock,
    count: int,
    *,
    fps: float = 25.0,
    first_pts: int = 1000,
    size: Size = SMALL,
    burst: int = 1,
    keyframe_every: int | None = None,
) -> None:
    """Publish `count` frames at an even cadence (or in bursts), in the loop's time."""
    start_s = asyncio.get_running_loop().time()
    for n in range(count):
        due_s = start_s + (n // burst) * burst / fps
        await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
        keyframe = None if keyframe_every is None else n % keyframe_every == 0
        pts = first_pts + round(n * 90_000 / fps)
        publisher.push(frame(pts, clock.now_s(), size, keyframe=keyframe, number=n))
