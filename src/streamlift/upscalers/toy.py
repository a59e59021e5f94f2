"""Nearest-neighbour x2 with knobs for delay, chunks and every kind of fault, for tests.

It ships with the package so that operators can rehearse faults too.
"""

from __future__ import annotations

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
from streamlift.upscalers.base import OnCut, Pixels, UpscalerSpec

__all__ = ["Toy", "ToyKnobs"]


@dataclass(frozen=True, slots=True)
class ToyKnobs:
    """Faults count a session's frames from 0; each happens once in the life of the upscaler.

    So a session opened as a retry gets past it, and a capacity probe of some twenty frames does
    not trigger a fault that is set later than that.

    delay_ms, jitter_ms: time a computation takes, and what is added at random at most.
    first, step, lag: the arithmetic of a chunked model (see UpscalerSpec).
    fail_at, oom_at, hang_at, black_at, wrong_shape_at: the frame at which that happens; black is
    what a NaN becomes when it is cast to 8 bits. hang_s: how long a hang lasts.
    fail_every: fail in every session, at fail_at and each so many frames after; 0 means once.
    restart_on_cut: ask for a new session at a scene cut.
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
    restart_on_cut: bool = False


class Toy:
    """Weightless; remembers which faults have happened, and counts what is done to sessions."""

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
            name="toy",
            scale=2,
            first=k.first,
            step=k.step,
            lag=k.lag,
            pixels=Pixels.YUV420,
            on_cut=OnCut.RESTART if k.restart_on_cut else OnCut.CONTINUE,
        )
        self.opened = self.parked = self.resumed = 0
        self.released = threading.Event()
        """Set it to end a hang early, so that a test leaves no thread behind."""
        self._happened: set[str] = set()

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
        self.opened += 1
        return ToySession(self, seed)

    def once(self, fault: str) -> bool:
        """True the first time it is asked for this fault."""
        if fault in self._happened:
            return False
        self._happened.add(fault)
        return True


class ToySession:
    """Keeps the frames it owes and gives back all but `lag` of them at each computation.

    Raises UpscaleError when it is used while it is parked.
    """

    def __init__(self, toy: Toy, seed: int) -> None:
        self._toy = toy
        self._random = random.Random(seed)  # noqa: S311  the same each time
        self._owed: deque[Planes] = deque()
        self._number = -1
        # The first computation gives at least one output, however many are owed later.
        self._keep = min(toy.spec.lag, toy.spec.first - 1)
        self.wanted = toy.spec.first
        self._parked = False

    def park(self) -> None:
        self._parked = True
        self._toy.parked += 1

    def resume(self) -> None:
        self._parked = False
        self._toy.resumed += 1

    def push(self, lr: Planes) -> Iterator[Planes]:
        self._must_be_here()
        self._number += 1
        self._fault(self._number)
        self._owed.append(lr)
        self.wanted -= 1
        if self.wanted == 0:
            self._work()
            self.wanted = self._toy.spec.step
            keep, self._keep = self._keep, self._toy.spec.lag
            while len(self._owed) > keep:
                yield self._enlarge(self._owed.popleft(), self._number)

    def finish(self) -> Iterator[Planes]:
        self._must_be_here()
        if self._owed:
            self._work()
        while self._owed:
            yield self._enlarge(self._owed.popleft(), number=-1)

    def _must_be_here(self) -> None:
        if self._parked:
            raise UpscaleError("the session is parked", found="parked", expected="resumed")

    def _work(self) -> None:
        knobs = self._toy.knobs
        delay_ms = knobs.delay_ms + self._random.random() * knobs.jitter_ms
        if delay_ms > 0:
            time.sleep(delay_ms / 1000)

    def _fault(self, number: int) -> None:
        knobs, once = self._toy.knobs, self._toy.once
        since = number - knobs.fail_at
        if knobs.fail_every and knobs.fail_at >= 0 and since >= 0 and since % knobs.fail_every == 0:
            raise UpscaleError(f"toy was told to fail at frame {number}")
        if number == knobs.fail_at and once("fail"):
            raise UpscaleError(f"toy was told to fail at frame {number}")
        if number == knobs.oom_at and once("oom"):
            raise OutOfMemory(f"toy was told to run out of memory at frame {number}")
        if number == knobs.hang_at and once("hang"):
            self._toy.released.wait(knobs.hang_s)

    def _enlarge(self, lr: Planes, number: int) -> Planes:
        knobs, once = self._toy.knobs, self._toy.once
        if number >= 0 and number == knobs.wrong_shape_at and once("shape"):
            return lr
        if number >= 0 and number == knobs.black_at and once("black"):
            lr = Planes(*(np.zeros_like(p) for p in (lr.y, lr.u, lr.v)))
        return Planes(_nearest(lr.y), _nearest(lr.u), _nearest(lr.v))


def _nearest(plane: Plane) -> Plane:
    return plane.repeat(2, axis=0).repeat(2, axis=1)
