"""Nearest-neighbour x2 with knobs for delay, chunks and every kind of fault, for tests.

It ships with the package so that operators can rehearse faults too.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from streamlift.errors import ConfigError, OutOfMemory, UpscaleError
from streamlift.frames import Plane, Planes, Size
from streamlift.upscalers.base import Pixels, UpscalerSpec

__all__ = ["Toy", "ToyKnobs"]


@dataclass(frozen=True, slots=True)
class ToyKnobs:
    """Faults count frames from 0 over the life of the upscaler, so that a retry gets past them.

    delay_ms, jitter_ms: time a computation takes, and what is added at random at most.
    first, step, lag: the arithmetic of a chunked model (see UpscalerSpec).
    fail_at, oom_at, hang_at, black_at, wrong_shape_at: the frame at which that happens; black is
    what a NaN becomes when it is cast to 8 bits. hang_s: how long a hang lasts.
    fail_every: fail again each so many frames after fail_at; 0 means once.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    first: int = 1
    step: int = 1
    lag: int = 0
    fail_at: int = -1
    fail_every: int = 0
    oom_at: int = -1
    hang_at: int = -1
    hang_s: float = 2.0
    black_at: int = -1
    wrong_shape_at: int = -1


class Toy:
    """Weightless; counts frames over all sessions to know when to fail."""

    def __init__(self, knobs: ToyKnobs | None = None) -> None:
        self.knobs = knobs or ToyKnobs()
        k = self.knobs
        if k.first < 1 or k.step < 1 or not 0 <= k.lag < k.first + k.step:
            raise ConfigError(
                "toy chunk sizes do not fit together",
                found={"first": k.first, "step": k.step, "lag": k.lag},
                expected="first >= 1, step >= 1, 0 <= lag < first + step",
            )
        self.spec = UpscalerSpec(
            name="toy", scale=2, first=k.first, step=k.step, lag=k.lag, pixels=Pixels.YUV420
        )
        self.released = threading.Event()
        """Set it to end a hang early, so that a test leaves no thread behind."""
        self._numbers = itertools.count()

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Toy:
        """Settings are the fields of ToyKnobs. Raises ConfigError for any other key."""
        known = {f.name for f in fields(ToyKnobs)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ConfigError("unknown toy setting", found=unknown, expected=sorted(known))
        return cls(ToyKnobs(**settings))

    def session_bytes(self, size: Size) -> int:
        return (self.spec.max_owed + 1) * size.pixels * 3 // 2

    def open(self, size: Size, *, seed: int = 0) -> ToySession:
        return ToySession(self, seed)

    def next_number(self) -> int:
        return next(self._numbers)


class ToySession:
    """Keeps the frames it owes and gives back all but `lag` of them at each computation."""

    def __init__(self, toy: Toy, seed: int) -> None:
        self._toy = toy
        self._random = random.Random(seed)
        self._owed: deque[Planes] = deque()
        self.wanted = toy.spec.first

    def push(self, lr: Planes) -> Iterator[Planes]:
        number = self._toy.next_number()
        self._fault(number)
        self._owed.append(lr)
        self.wanted -= 1
        if self.wanted == 0:
            self._work()
            self.wanted = self._toy.spec.step
            while len(self._owed) > self._toy.spec.lag:
                yield self._enlarge(self._owed.popleft(), number)

    def finish(self) -> Iterator[Planes]:
        if self._owed:
            self._work()
        while self._owed:
            yield self._enlarge(self._owed.popleft(), number=-1)

    def _work(self) -> None:
        knobs = self._toy.knobs
        delay_ms = knobs.delay_ms + self._random.random() * knobs.jitter_ms
        if delay_ms > 0:
            time.sleep(delay_ms / 1000)

    def _fault(self, number: int) -> None:
        knobs = self._toy.knobs
        since = number - knobs.fail_at
        if knobs.fail_at >= 0 and (
            since == 0 or (since > 0 and knobs.fail_every and since % knobs.fail_every == 0)
        ):
            raise UpscaleError(f"toy was told to fail at frame {number}")
        if number == knobs.oom_at:
            raise OutOfMemory(f"toy was told to run out of memory at frame {number}")
        if number == knobs.hang_at:
            self._toy.released.wait(knobs.hang_s)

    def _enlarge(self, lr: Planes, number: int) -> Planes:
        knobs = self._toy.knobs
        if number >= 0 and number == knobs.wrong_shape_at:
            return lr
        if number >= 0 and number == knobs.black_at:
            lr = Planes(*(np.zeros_like(p) for p in (lr.y, lr.u, lr.v)))
        return Planes(_nearest(lr.y), _nearest(lr.u), _nearest(lr.v))


def _nearest(plane: Plane) -> Plane:
    return plane.repeat(2, axis=0).repeat(2, axis=1)
