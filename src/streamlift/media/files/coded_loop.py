"""A clip that is drawn and coded once, in its first round, and played from memory ever after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator

from streamlift.clock import VIDEO_CLOCK_HZ, Clock
from streamlift.codec import H264Encoder
from streamlift.frames import Planes, Size
from streamlift.tasks import to_its_end

__all__ = ["CodedLoop", "TimedUnit"]

KEYFRAME_EVERY_S = 2.0
"""Relays that cannot ask for a keyframe can join at these."""

MOST_BYTES = 64 << 20
"""A longer clip is coded again in every round."""

TimedUnit = tuple[int, bytes, bool]
"""pts at 90 kHz, the access unit, and whether it is a keyframe."""


class CodedLoop:
    """Access units of a clip over and over, paced; its pictures are asked for once if they fit.

    `rounds` gives the clip's pictures from the beginning each time it is called.
    """

    def __init__(
        self,
        rounds: Callable[[], Iterator[Planes]],
        size: Size,
        fps: float,
        bitrate_bps: int,
        *,
        clock: Clock,
        burst: int = 1,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._rounds = rounds
        self._size = size
        self._fps = fps
        self._bitrate_bps = bitrate_bps
        self._clock = clock
        self._burst = burst
        self._most_bytes = most_bytes
        self._kept: list[tuple[bytes, bool]] = []
        self._whole = False

    async def units(self, keyframe_wanted: Callable[[], bool]) -> AsyncGenerator[TimedUnit]:
        """Give out units at the clip's rate, for ever; a clip of no pictures ends at once.

        `keyframe_wanted` is asked before every unit. From memory a wish is granted by going on at
        the next keyframe, at most two seconds further on.
        """
        start_s, number = self._clock.now_s(), 0
        units = self._coded(keyframe_wanted)
        try:
            async for data, keyframe in units:
                due_s = start_s + (number // self._burst) * self._burst / self._fps
                delay_s = due_s - self._clock.now_s()
                if delay_s > 0:
                    await asyncio.sleep(delay_s)
                yield round(number * VIDEO_CLOCK_HZ / self._fps), data, keyframe
                number += 1
        finally:
            await units.aclose()

    async def _coded(
        self, keyframe_wanted: Callable[[], bool]
    ) -> AsyncGenerator[tuple[bytes, bool]]:
        while not self._whole:
            some = False
            async for unit in self._first_round(keyframe_wanted):
                some = True
                yield unit
            if not some:
                return
        at = 0
        while True:
            if keyframe_wanted():
                at = self._next_keyframe(at)
            yield self._kept[at]
            at = (at + 1) % len(self._kept)

    async def _first_round(
        self, keyframe_wanted: Callable[[], bool]
    ) -> AsyncGenerator[tuple[bytes, bool]]:
        self._kept.clear()
        size, every = 0, max(1, round(KEYFRAME_EVERY_S * self._fps))
        encoder = H264Encoder(self._size, self._fps, self._bitrate_bps, profile="Baseline")
        pictures, number = self._rounds(), 0

        def code(keyframe: bool) -> tuple[bytes, bool] | None:
            planes = next(pictures, None)
            if planes is None:
                return None
            pts = round(number * VIDEO_CLOCK_HZ / self._fps)
            return encoder.encode(planes, pts, keyframe=keyframe)

        try:
            while True:
                wanted = keyframe_wanted() or number % every == 0
                # A thread cannot be cancelled: the encoder would be closed while it still works.
                unit = await to_its_end(asyncio.to_thread(code, wanted))
                if unit is None:
                    break
                size += len(unit[0])
                if size <= self._most_bytes:
                    self._kept.append(unit)
                number += 1
                yield unit
        finally:
            encoder.close()
        self._whole = number > 0 and size <= self._most_bytes

    def _next_keyframe(self, at: int) -> int:
        count = len(self._kept)
        after = (index % count for index in range(at, at + count))
        return next(index for index in after if self._kept[index][1])
