"""Scope as the post-processor meets it: a queue that feeds it, and a track that plays the result.

Times are those of a clock of the test's own. The rules follow daydreamlive/scope 0.2.4
(`pipeline_processor.py`, `tracks.py`): one frame a call, input and output queues of 30 that drop
the newest, a playback rate that latches, and a track that waits a frame time after each frame,
polls every 10 ms while there is none, and is a millisecond late. Queues grow to twice what a stage
gives at once. A frame with a timestamp goes by it instead, anchored anew when half a second late
(`core/pacing.py`). With sound the track holds the picture until the first of it came out of the
last stage; what a generator makes of it reaches a stage as a parameter that stays.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamlift.clock import ManualClock

QUEUE = 30
POLL_S = 0.01
LATE_S = 0.001
CELL = 16
SIDE = 64
BITS = 12


def picture(number: int, side: int = SIDE, *, shade: int = 90) -> Tensor:
    """(1, side, side, 3) uint8 with a binary counter in blocks at the top."""
    pixels = np.full((1, side, side, 3), shade, np.uint8)
    per_row = side // CELL
    for bit in range(BITS):
        top, left = divmod(bit, per_row)
        block = pixels[0, top * CELL : (top + 1) * CELL, left * CELL : (left + 1) * CELL]
        block[...] = 235 if number >> bit & 1 else 20
    return torch.from_numpy(pixels)


def number_in(shown: Tensor, side: int = SIDE) -> int:
    """Read the counter off (H, W, 3), whatever its size."""
    cell = CELL * shown.shape[0] // side
    per_row = side // CELL
    green = shown[cell // 2 :: cell, cell // 2 :: cell, 1].flatten()
    assert green.numel() == per_row * per_row
    return sum(int(value > 128) << bit for bit, value in enumerate(green[:BITS].tolist()))


@dataclass(slots=True)
class Shown:
    """What the viewer saw: counter values, when, and how large."""

    numbers: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def gaps_s(self, after_s: float = 0.0) -> list[float]:
        late = [t for t in self.times_s if t >= after_s]
        return [b - a for a, b in itertools.pairwise(late)]

    def fps(self, after_s: float) -> float:
        gaps = self.gaps_s(after_s)
        return len(gaps) / sum(gaps)


Stage = Callable[..., dict[str, Any]]


@dataclass(slots=True)
class Scope:
    """Runs a source, the stage and the track against each other in the clock's time."""

    stage: Stage
    clock: ManualClock
    params: dict[str, Any] = field(default_factory=dict)
    stamped: bool = False
    """Whether the generator's frames carry timestamps."""
    sound: bool = False
    """Whether the generator makes sound, a piece with each burst."""
    lost: int = 0
    heard: list[tuple[float, int]] = field(default_factory=list)
    """When which piece of sound came out."""
    shown: Shown = field(default_factory=Shown)
    _queue: deque[tuple[Tensor, Any]] = field(default_factory=deque)
    _play: deque[tuple[Tensor, Any]] = field(default_factory=deque)
    _limit: int = QUEUE
    _anchor: tuple[float, float] | None = None
    _fps: float = 60.0
    _next_s: float = 0.0
    _prepared: bool = False
    rate: int = 16
    """Of the timestamps, frames a second."""
    _sent: int = 0
    _pieces: int = 0

    def run(
        self,
        bursts: Sequence[tuple[float, Sequence[Tensor]]],
        *,
        events: Sequence[tuple[float, dict[str, Any]]] = (),
        call_s: float = 0.0,
    ) -> Shown:
        """`bursts`: frames and when they are ready. `events`: parameters and when they are set.

        `call_s`: time a call that returns frames takes.
        """
        waiting, changes = deque(bursts), deque(events)
        while waiting or self._queue:
            while changes and changes[0][0] <= self.clock.now_s():
                self.params.update(changes.popleft()[1])
            while waiting and waiting[0][0] <= self.clock.now_s():
                self._burst(*waiting.popleft())
            if self._queue:
                self._call(call_s)
            else:
                self._pass(POLL_S)
        self._pass(3.0)
        return self.shown

    def _call(self, call_s: float) -> None:
        before_s = self.clock.now_s()
        frame, stamp = self._queue.popleft()
        result = self.stage(
            video=[frame],
            video_timestamps=[stamp],
            init_cache=not self._prepared,
            **self.params,
        )
        self._prepared = True
        if result.get("audio") is not None:
            self.heard.append((before_s, int(result["audio"][0, 0])))
        if result["video"] is None:
            self._pass(0.0002)
            return
        self._pass(call_s + max(0.0005, before_s - self.clock.now_s()))
        count = result["video"].shape[0]
        stamps = result.get("video_timestamps") or [None] * count
        self._enqueue(self._play, list(zip(result["video"], stamps, strict=True)))
        self._fps = result.get("frame_rate", self._fps)

    def _burst(self, ready_s: float, frames: Sequence[Tensor]) -> None:
        stamps: list[Any] = [None] * len(frames)
        if self.stamped:
            stamps = [
                SimpleNamespace(pts=self._sent + n, time_base=Fraction(1, self.rate))
                for n in range(len(frames))
            ]
        self._sent += len(frames)
        if self.sound:
            self._pieces += 1
            piece = torch.full((1, 480), float(self._pieces))
            self.params.update(audio=piece, audio_sample_rate=48_000)
        self._enqueue(self._queue, list(zip(frames, stamps, strict=True)))

    def _enqueue(
        self, queue: deque[tuple[Tensor, Any]], frames: Sequence[tuple[Tensor, Any]]
    ) -> None:
        self._limit = max(self._limit, 2 * len(frames))
        for frame in frames:
            if len(queue) < self._limit:
                queue.append(frame)
            else:
                self.lost += 1

    def _wait_s(self, stamp: Any, now_s: float) -> float:
        """How long the track sleeps before a frame with a timestamp."""
        media_s = float(stamp.pts * stamp.time_base)
        if self._anchor is None:
            self._anchor = (media_s, now_s)
        late_s = now_s - self._anchor[1] - (media_s - self._anchor[0])
        if late_s >= 0.5:
            self._anchor = (media_s, now_s)
            return 0.0
        return max(0.0, -late_s) if abs(late_s) > 0.01 else 0.0

    def _pass(self, seconds: float) -> None:
        """Let time go by, and the track play meanwhile."""
        end_s = self.clock.now_s() + seconds
        while self._next_s <= end_s:
            now_s = max(self._next_s, self.clock.now_s())
            if self._play and (self.heard or not self.sound):
                frame, stamp = self._play[0]
                if stamp is not None and (wait_s := self._wait_s(stamp, now_s)) > 0:
                    self._next_s = now_s + wait_s
                    continue
                self._play.popleft()
                self.shown.numbers.append(number_in(frame))
                self.shown.times_s.append(now_s)
                self.shown.sizes.append((frame.shape[1], frame.shape[0]))
                self._next_s = now_s + LATE_S + (1.0 / self._fps if stamp is None else 0.0)
            else:
                self._next_s = now_s + POLL_S
        self.clock.advance(end_s - self.clock.now_s())


def longlive(fps: float, seconds: float) -> list[tuple[float, list[Tensor]]]:
    """LongLive's cadence: 9 frames, then 12 at once, each block as long as its frames play."""
    bursts: list[tuple[float, list[Tensor]]] = []
    ready_s, number = 0.0, 0
    while ready_s < seconds:
        count = 9 if not bursts else 12
        ready_s += count / fps
        bursts.append((ready_s, [picture(number + i) for i in range(count)]))
        number += count
    return bursts


def bursts_of(count: int, fps: float, seconds: float) -> list[tuple[float, list[Tensor]]]:
    """A generator with larger blocks: LongLive 2 makes about 32 at once, others more."""
    return [
        ((block + 1) * count / fps, [picture(block * count + i) for i in range(count)])
        for block in range(int(seconds * fps / count))
    ]


def camera(fps: float, seconds: float) -> list[tuple[float, list[Tensor]]]:
    """One frame at a time, evenly."""
    return [(i / fps, [picture(i)]) for i in range(int(fps * seconds))]
