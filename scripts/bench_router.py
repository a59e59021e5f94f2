"""Measure the CPU time that routing spends on a frame, between a publisher and its viewers.

Backends answer at once and encode nothing; streams run at their real rate, because the router's
timers cost too. The harness alone is measured in the same way and taken off.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import numpy as np

from streamlift.clock import VIDEO_CLOCK_HZ, Clock, MonotonicClock
from streamlift.frames import (
    BackendInfo,
    BackendState,
    Codec,
    CodedAudio,
    Colour,
    EncodedFrame,
    Frame,
    IngestCounts,
    LaneOptions,
    Planes,
    Rendition,
    Size,
    Slots,
)
from streamlift.metrics import Metrics
from streamlift.routing import BackendTable, Router, StreamSettings

SIZE = Size(512, 512)
RENDITION = Rendition(Codec.H264, 6_000_000, "High")
PLANES = Planes(
    np.zeros((512, 512), np.uint8), np.zeros((256, 256), np.uint8), np.zeros((256, 256), np.uint8)
)
DATA = bytes(30_000)  # an access unit of 6 Mbit/s at 25 fps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--viewers", type=int, default=1, help="of each stream")
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    load = Load(**vars(parser.parse_args()))
    harness = asyncio.run(measure(load, routed=False))
    routed = asyncio.run(measure(load, routed=True))
    print(
        f"{load.streams} streams, {load.viewers} viewers each, {load.fps:g} fps: "
        f"{routed.per_frame_ms - harness.per_frame_ms:.3f} CPU-ms a frame in the router "
        f"({routed.per_frame_ms:.3f} with the harness, {harness.per_frame_ms:.3f} without); "
        f"{routed.seen} of {routed.frames * load.viewers} frames reached viewers; "
        f"load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
    )


@dataclass(frozen=True, slots=True)
class Load:
    """What is run."""

    streams: int
    viewers: int
    fps: float
    seconds: float


@dataclass(slots=True)
class Cost:
    """Frames published, frames that viewers got, and the CPU seconds it took."""

    frames: int = 0
    seen: int = 0
    cpu_s: float = 0.0

    @property
    def per_frame_ms(self) -> float:
        return 1000 * self.cpu_s / max(1, self.frames)


class Publisher:
    """Frames at the asked rate, all of the same picture. Fits `routing.ports.Publisher`."""

    audio: AsyncIterator[CodedAudio] | None = None

    def __init__(self, load: Load, clock: Clock, cost: Cost) -> None:
        self._load = load
        self._clock = clock
        self._cost = cost
        self.counts = IngestCounts()
        self.absence: str | None = None

    async def __aiter__(self) -> AsyncIterator[Frame]:
        start_s = self._clock.now_s()
        for number in range(int(self._load.seconds * self._load.fps)):
            await asyncio.sleep(start_s + number / self._load.fps - self._clock.now_s())
            self._cost.frames += 1
            pts = round(number * VIDEO_CLOCK_HZ / self._load.fps)
            yield Frame(pts, SIZE, PLANES, Colour(), arrived_s=self._clock.now_s())

    def request_keyframe(self) -> None:
        return

    async def aclose(self, reason: str) -> None:
        return


class Lane:
    """Answers each frame at once. Fits `routing.ports.Lane`."""

    upscaled = 0
    dropped: Mapping[str, int] = {}
    degraded = False
    can_spend_less = False
    leaving = False
    stuck_s = 0.0

    def __init__(self) -> None:
        self._ready: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._keyframe = True

    def offer(self, frame: Frame) -> bool:
        self._ready.put_nowait(frame)
        return True

    def finish(self) -> None:
        self._ready.put_nowait(None)

    def set_renditions(self, wanted: frozenset[Rendition]) -> None:
        return

    def request_keyframe(self) -> None:
        self._keyframe = True

    def park(self) -> None:
        return

    async def aclose(self) -> None:
        return

    async def __aiter__(self) -> AsyncIterator[EncodedFrame]:
        while (frame := await self._ready.get()) is not None:
            keyframe, self._keyframe = self._keyframe, False
            yield encoded(frame, keyframe)


class Backend:
    """Fits `routing.ports.Backend`."""

    async def start(self) -> None:
        return

    async def aclose(self) -> None:
        return

    async def probe(self) -> None:
        return

    def lane_hung(self, lane: object) -> None:
        raise RuntimeError("a lane that answers each frame at once was called hung")

    def info(self) -> BackendInfo:
        slots = Slots(total=1000, used=0)
        return BackendInfo("echo", "echo", "cpu", BackendState.READY, "", 1000.0, slots)

    async def open_lane(self, size: Size, options: LaneOptions) -> Lane:
        return Lane()


async def measure(load: Load, *, routed: bool) -> Cost:
    """Run all streams to their end and count."""
    clock, cost = MonotonicClock(), Cost()
    started_s = time.process_time()
    if routed:
        await run_routed(load, clock, cost)
    else:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(load.streams):
                tasks.create_task(run_bare(Publisher(load, clock, cost)))
    cost.cpu_s = time.process_time() - started_s
    return cost


async def run_bare(publisher: Publisher) -> None:
    """The harness alone: from the publisher to a lane and out."""
    lane = Lane()

    async def read() -> None:
        async for _ in lane:
            pass

    reading = asyncio.create_task(read())
    async for frame in publisher:
        lane.offer(frame)
    lane.finish()
    await reading


async def run_routed(load: Load, clock: Clock, cost: Cost) -> None:
    async with asyncio.TaskGroup() as tasks:
        router = Router(
            BackendTable([Backend()], clock=clock),
            "echo",
            clock=clock,
            metrics=Metrics(),
            tasks=tasks,
            settings=StreamSettings(RENDITION),
        )

        async def watch(name: str) -> None:
            with router.watch(name) as cursor:
                async for _ in cursor:
                    cost.seen += 1

        publishing = []
        for number in range(load.streams):
            name = f"s{number}"
            publishing.append(
                asyncio.create_task(router.publish(name, Publisher(load, clock, cost)))
            )
            await asyncio.sleep(0)  # the stream exists from here on
            for _ in range(load.viewers):
                tasks.create_task(watch(name))
        await asyncio.gather(*publishing)
        await router.aclose()


def encoded(frame: Frame, keyframe: bool) -> EncodedFrame:
    return EncodedFrame(
        frame.pts, SIZE.times(2), RENDITION, keyframe, DATA, arrived_s=frame.arrived_s
    )


if __name__ == "__main__":
    main()
