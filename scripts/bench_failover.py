"""What a fault costs the viewers: at the fault itself, and on the way back to the backend.

    .venv/bin/python -m scripts.bench_failover --runs 5 [--burn 2]

One stream of 512x512 at 25 fps on an in-process backend, pictures of the built-in scene, one
viewer. Three kinds of run, in turn, so that the machine's other work falls on all alike: nothing
happens (`control`), a switch is asked for (`switch`), the lane raises (`fault`). Told for each:
the longest gap and the frames lost in the first second after it, and in the five after that, in
which a failed stream returns to its backend. `--burn N` keeps N processes busy beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass

from streamlift.clock import Clock, MonotonicClock
from streamlift.engine import EngineBackend
from streamlift.engine.lane import EngineLane
from streamlift.errors import UpscaleError
from streamlift.frames import (
    Codec,
    CodedAudio,
    Colour,
    Frame,
    IngestCounts,
    LaneOptions,
    Planes,
    Rendition,
    Size,
)
from streamlift.media.files.scene import scene_pictures
from streamlift.metrics import Metrics
from streamlift.routing import BackendTable, Router, StreamSettings

FPS = 25.0
SIZE = Size(512, 512)
BEFORE_S, AT_S, AFTER_S = 3.0, 1.0, 5.0
RENDITION = Rendition(Codec.H264, 6_000_000)


class Scene:
    """A publisher of decoded pictures, at an even pace."""

    def __init__(self, clock: Clock, pictures: list[Planes]) -> None:
        self._clock = clock
        self._pictures = itertools.cycle(pictures)
        self._ended = False
        self.counts = IngestCounts()
        self.audio: AsyncIterator[CodedAudio] | None = None
        self.absence: str | None = None

    async def __aiter__(self) -> AsyncIterator[Frame]:
        start_s = self._clock.now_s()
        for number in itertools.count():
            await asyncio.sleep(max(0.0, start_s + number / FPS - self._clock.now_s()))
            if self._ended:
                return
            planes, now_s = next(self._pictures), self._clock.now_s()
            yield Frame(round(number * 90_000 / FPS), planes.size, planes, Colour(), now_s)

    def request_keyframe(self) -> None:
        """Every picture is whole already."""

    async def aclose(self, reason: str) -> None:
        self._ended = True


class Failing(EngineBackend):
    """A backend whose newest lane fails when told to, as if its model had raised."""

    async def open_lane(self, size: Size, options: LaneOptions) -> EngineLane:
        self._newest = await super().open_lane(size, options)
        return self._newest

    def fail(self) -> None:
        self._newest._fail(UpscaleError("told to fail"))


@dataclass(frozen=True, slots=True)
class Window:
    """The longest gap in ms and the frames that never came, of one stretch of time."""

    gap_ms: float
    lost: int


@dataclass(frozen=True, slots=True)
class Outcome:
    at: Window
    after: Window
    dropped: dict[str, int]


async def run(kind: str, pictures: list[Planes]) -> Outcome:
    clock = MonotonicClock()
    ai, other, plain = (
        Failing(name, "bicubic", settings={}, preset="superfast", max_age_s=age_s, clock=clock)
        for name, age_s in (("ai", 0.5), ("other", 0.5), ("bicubic", 1.5))
    )
    for backend in (ai, other, plain):
        await backend.start()
    seen: list[tuple[float, int]] = []
    async with asyncio.TaskGroup() as tasks:
        router = Router(
            BackendTable([ai, other, plain], clock=clock),
            "ai",
            clock=clock,
            metrics=Metrics(),
            tasks=tasks,
            settings=StreamSettings(RENDITION),
        )
        publisher = Scene(clock, pictures)
        publishing = tasks.create_task(router.publish("s", publisher))
        await asyncio.sleep(0.1)

        async def watch() -> None:
            with router.watch("s") as cursor:
                async for frame in cursor:
                    seen.append((clock.now_s(), frame.pts))  # noqa: PERF401 - read while it runs

        watching = tasks.create_task(watch())
        await asyncio.sleep(BEFORE_S)
        began_s = clock.now_s()
        if kind == "fault":
            ai.fail()
        elif kind == "switch":
            await router.switch("s", "other")
        await asyncio.sleep(AT_S + AFTER_S)
        (told,) = router.streams()
        await publisher.aclose("done")
        await publishing
        await router.aclose()
        await watching
    for backend in (ai, other, plain):
        await backend.aclose()
    return Outcome(
        at=_window(seen, began_s - 0.1, began_s + AT_S),
        after=_window(seen, began_s + AT_S, began_s + AT_S + AFTER_S),
        dropped={**told.frames.dropped, "backend": told.backend},  # type: ignore[dict-item]
    )


def _window(seen: list[tuple[float, int]], start_s: float, end_s: float) -> Window:
    inside = [one for one in seen if start_s <= one[0] < end_s]
    pairs = list(itertools.pairwise(inside))
    gap_s = max((b[0] - a[0] for a, b in pairs), default=end_s - start_s)
    step = 90_000 / FPS
    return Window(gap_s * 1000, sum(round((b[1] - a[1]) / step) - 1 for a, b in pairs))


def _burn() -> None:
    while True:
        sum(range(10_000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--burn", type=int, default=0, metavar="N", help="busy processes beside it")
    arguments = parser.parse_args()
    pictures = list(itertools.islice(scene_pictures(SIZE), 100))
    burners = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(arguments.burn)]
    for burner in burners:
        burner.start()
    outcomes: dict[str, list[Outcome]] = {"control": [], "switch": [], "fault": []}
    for _ in range(arguments.runs):
        for kind, found in outcomes.items():
            found.append(asyncio.run(run(kind, pictures)))
            one = found[-1]
            print(
                f"{kind:>8}  at {one.at.gap_ms:4.0f} ms, {one.at.lost} lost   "
                f"after {one.after.gap_ms:4.0f} ms, {one.after.lost} lost   {one.dropped}",
                flush=True,
            )
    for burner in burners:
        burner.terminate()
    print("median  gap ms at / after, frames lost at / after (sum)")
    for kind, found in outcomes.items():
        print(
            f"{kind:>8}  {statistics.median(o.at.gap_ms for o in found):.0f} / "
            f"{statistics.median(o.after.gap_ms for o in found):.0f}   "
            f"{sum(o.at.lost for o in found)} / {sum(o.after.lost for o in found)}"
        )


if __name__ == "__main__":
    main()
