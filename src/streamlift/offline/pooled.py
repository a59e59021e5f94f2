"""A model without memory as one that computes a few pictures at once, a thread each, in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import cv2

from streamlift.frames import Planes, Size
from streamlift.upscalers import Upscaler
from streamlift.upscalers.base import UpscaleSession

__all__ = ["Pooled"]


class Pooled:
    """Stands in for `upscaler`, which takes planes, gives one picture for each, remembers none.

    Every thread opens a session of its own. `close` ends the threads; what they have not begun is
    dropped.
    """

    def __init__(self, upscaler: Upscaler, workers: int) -> None:
        self._upscaler, self._waiting = upscaler, workers + 2
        self.spec = replace(upscaler.spec, lag=self._waiting)
        self._threads_before = cv2.getNumThreads()
        cv2.setNumThreads(1)  # the workers are threads enough
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="upscale")

    def session_bytes(self, size: Size) -> int:
        return self._upscaler.session_bytes(size)

    def open(self, size: Size, *, seed: int = 0) -> _Session:
        return _Session(self._upscaler, size, seed, self._pool, self._waiting)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        cv2.setNumThreads(self._threads_before)


class _Session:
    """At most `waiting` pictures are owed; one that is ready is given at the next push."""

    wanted = 1

    def __init__(
        self, upscaler: Upscaler, size: Size, seed: int, pool: ThreadPoolExecutor, waiting: int
    ) -> None:
        self._upscaler, self._size, self._seed = upscaler, size, seed
        self._pool, self._waiting = pool, waiting
        self._owed: deque[Future[list[Planes]]] = deque()
        self._own = threading.local()

    def push(self, lr: Planes) -> Iterator[Planes]:
        self._owed.append(self._pool.submit(self._enlarge, lr))
        while self._owed and (len(self._owed) > self._waiting or self._owed[0].done()):
            yield from self._owed.popleft().result()

    def finish(self) -> Iterator[Planes]:
        while self._owed:
            yield from self._owed.popleft().result()

    def _enlarge(self, lr: Planes) -> list[Planes]:
        session: UpscaleSession[Any] | None = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = self._upscaler.open(self._size, seed=self._seed)
        return list(session.push(lr))
