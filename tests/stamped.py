"""A publisher of freshly stamped pictures and a viewer that reads the stamps, to count frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import astuple, dataclass, field
from itertools import pairwise

import cv2
import numpy as np
from tests.clips import TICKS, coded_clip, picture
from tests.peers import ClipPublisher, publishing
from tests.serving import until

from streamlift.clock import Clock, MonotonicClock
from streamlift.codec import VideoEncoder, open_encoder
from streamlift.frames import Codec, Colour, Plane, Rendition, Size
from streamlift.media.incoming.video_in import VideoReceiver
from streamlift.media.remote.client import watch_whep
from streamlift.stamp import Stamp, elapsed_ms, read_stamp

__all__ = [
    "TINY",
    "Shown",
    "Source",
    "StampViewer",
    "lost",
    "max_gap_ms",
    "sending",
    "viewing",
]

TINY = Size(128, 128)
"""The smallest picture that carries a stamp."""
KEYFRAME_EVERY = 50
_RENDITION = Rendition(Codec.H264, 400_000, "Baseline")


class Source:
    """Makes the access units of stamped pictures; `size` may be changed at any time."""

    def __init__(self, size: Size = TINY, first: int = 0) -> None:
        self.size = size
        self.number = first
        self.publisher: ClipPublisher | None = None
        self._encoder: VideoEncoder | None = None
        self._encoded_size: Size | None = None
        self._answered = 0
        self._clock: Clock = MonotonicClock()

    def unit(self, sent: int, _: bytes) -> bytes:
        """The next picture, coded; fits `publishing(change=)`."""
        asked = 0 if self.publisher is None else self.publisher.keyframes_asked
        if self._encoder is None or self._encoded_size != self.size:
            self.close()
            self._encoded_size = self.size
            self._encoder = open_encoder(
                _RENDITION, self.size, 25, preset="superfast", colour=Colour()
            )
        shown = picture(self.size, self.number, now_s=self._clock.now_s())
        keyframe = asked != self._answered or sent % KEYFRAME_EVERY == 0
        self._answered = asked
        data, _is_key = self._encoder.encode(shown, sent * TICKS, keyframe=keyframe)
        self.number += 1
        return data

    def close(self) -> None:
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None


@asynccontextmanager
async def sending(
    url: str, source: Source | None = None, *, fps: float = 25.0, delete: bool = True
) -> AsyncIterator[Source]:
    """Publish stamped pictures until the block ends; connected when it begins."""
    source = source or Source()
    clip = coded_clip(TINY, 1)
    try:
        async with publishing(url, clip, fps=fps, change=source.unit, delete=delete) as publisher:
            source.publisher = publisher
            yield source
    finally:
        source.close()


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture at the viewer: its stamp's number (None for a slate), pts, and when."""

    number: int | None
    pts: int
    at_s: float
    size: Size
    latency_ms: float | None


@dataclass(slots=True, eq=False)
class StampViewer:
    """Everything one viewer saw over one connection."""

    gone: asyncio.Task[None]
    source: Size | None = None
    """Of the publisher, where what comes is not twice as large."""
    shown: list[Shown] = field(default_factory=list)
    clock: Clock = field(default_factory=MonotonicClock)

    async def read(self, video: VideoReceiver) -> None:
        async for frame in video:
            now_s = self.clock.now_s()
            stamp = self._stamp(frame.planes.y)
            if stamp is not None and (stamp.number, stamp.ms) == (0, 0):
                stamp = None  # all black: a slate
            self.shown.append(
                Shown(
                    None if stamp is None else stamp.number,
                    frame.pts,
                    now_s,
                    frame.size,
                    None if stamp is None else elapsed_ms(stamp, now_s),
                )
            )

    def _stamp(self, luma: Plane) -> Stamp | None:
        if self.source is None:
            return read_stamp(luma, scale=2)
        small = cv2.resize(luma, astuple(self.source), interpolation=cv2.INTER_AREA)
        return read_stamp(np.asarray(small))

    @property
    def numbers(self) -> list[int]:
        return [one.number for one in self.shown if one.number is not None]

    def since(self, at_s: float) -> list[Shown]:
        return [one for one in self.shown if one.at_s >= at_s]

    async def more(self, count: int, timeout_s: float = 15.0) -> None:
        """Wait for so many further pictures."""
        wanted = len(self.shown) + count
        await until(lambda: len(self.shown) >= wanted, f"{count} pictures", timeout_s=timeout_s)

    async def see(
        self, what: str, check: Callable[[Shown], bool], timeout_s: float = 15.0
    ) -> Shown:
        """Wait for a further picture of which `check` holds, and return it."""
        start = len(self.shown)
        await until(lambda: any(map(check, self.shown[start:])), what, timeout_s=timeout_s)
        return next(filter(check, self.shown[start:]))

    def assert_unbroken(self) -> None:
        """Still the first connection, no number twice or backwards, and pts only rise."""
        assert not self.gone.done(), "the viewer would have had to reconnect"
        assert all(b > a for a, b in pairwise(self.numbers)), self.numbers
        assert all(b.pts > a.pts for a, b in pairwise(self.shown))


def lost(shown: list[Shown]) -> int:
    """Numbers that are missing between the first and the last of these pictures."""
    numbers = [one.number for one in shown if one.number is not None]
    return sum(b - a - 1 for a, b in pairwise(numbers))


def max_gap_ms(shown: list[Shown]) -> float:
    return max((1000 * (b.at_s - a.at_s) for a, b in pairwise(shown)), default=0.0)


@asynccontextmanager
async def viewing(url: str, source: Size | None = None) -> AsyncIterator[StampViewer]:
    """Watch until the block ends; the first picture has been seen when it begins.

    `source`: the publisher's size, where pictures do not come twice as large.
    """
    async with watch_whep(url, None, clock=MonotonicClock()) as (video, gone):
        viewer = StampViewer(gone, source)
        reading = asyncio.create_task(viewer.read(video))
        try:
            await viewer.more(1)
            yield viewer
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
