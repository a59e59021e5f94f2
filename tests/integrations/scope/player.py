"""Scope as the post-processor meets it: a queue that feeds it, and a track that plays the result.

Times are those of a clock of the test's own. The rules follow daydreamlive/scope 0.2.4
(`pipeline_processor.py`, `tracks.py`): one frame a call, input and output queues of 30 that drop
the newest, a playback rate that latches, and a track that waits a frame time after each frame,
polls every 10 ms while there is none, and is a millisecond late.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
    lost: int = 0
    shown: Shown = field(default_factory=Shown)
    _queue: deque[Tensor] = field(default_factory=deque)
    _play: deque[Tensor] = field(default_factory=deque)
    _fps: float = 60.0
    _next_s: float = 0.0
    _prepared: bool = False

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
                self._enqueue(self._queue, waiting.popleft()[1])
            if self._queue:
                self._call(call_s)
            else:
                self._pass(POLL_S)
        self._pass(3.0)
        return self.shown

    def _call(self, call_s: float) -> None:
        before_s = self.clock.now_s()
        result = self.stage(
            video=[self._queue.popleft()], init_cache=not self._prepared, **self.params
        )
        self._prepared = True
        if result["video"] is None:
            self._pass(0.0002)
            return
        self._pass(call_s + max(0.0005, before_s - self.clock.now_s()))
        self._enqueue(self._play, [result["video"][i] for i in range(result["video"].shape[0])])
        self._fps = result.get("frame_rate", self._fps)

    def _enqueue(self, queue: deque[Tensor], frames: Sequence[Tensor]) -> None:
        for frame in frames:
            if len(queue) < QUEUE:
                queue.append(frame)
            else:
                self.lost += 1

    def _pass(self, seconds: float) -> None:
        """Let time go by, and the track play meanwhile."""
        end_s = self.clock.now_s() + seconds
        while self._next_s <= end_s:
            now_s = max(self._next_s, self.clock.now_s())
            if self._play:
                frame = self._play.popleft()
                self.shown.numbers.append(number_in(frame))
                self.shown.times_s.append(now_s)
                self.shown.sizes.append((frame.shape[1], frame.shape[0]))
                self._next_s = now_s + 1.0 / self._fps + LATE_S
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


def camera(fps: float, seconds: float) -> list[tuple[float, list[Tensor]]]:
    """One frame at a time, evenly."""
    return [(i / fps, [picture(i)]) for i in range(int(fps * seconds))]
