"""Work that goes on beside: reading ahead and writing behind, each a thread with a bound."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

__all__ = ["Behind", "ahead", "behind"]

T = TypeVar("T")


class _End:
    """What a thread says last: nothing more, or what stopped it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@contextmanager
def ahead(source: Iterable[T], bound: int) -> Iterator[Iterator[T]]:
    """Iterate `source` on a thread, at most `bound` items ahead. Its errors are raised here.

    When the block ends early the thread is stopped after the item it is at.
    """
    ready: queue.Queue[T | _End] = queue.Queue(bound)
    stop = threading.Event()

    def put(item: T | _End) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def run() -> None:
        end = _End()
        try:
            for item in source:
                put(item)
                if stop.is_set():
                    break
        except BaseException as error:  # noqa: BLE001  whatever it is, the reader must hear of it
            end = _End(error)
        put(end)

    def items() -> Iterator[T]:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    thread = threading.Thread(target=run, name="read", daemon=True)
    thread.start()
    try:
        yield items()
    finally:
        stop.set()
        thread.join()


class Behind(Generic[T]):
    """Takes items that a thread consumes in order; what that raises is raised at the next `put`."""

    def __init__(self, consume: Callable[[T], None], bound: int) -> None:
        self._consume = consume
        self._waiting: queue.Queue[T | _End] = queue.Queue(bound)
        self._error: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="write", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Waits while `bound` items are waiting."""
        self._raise()
        self._waiting.put(item)

    def finish(self) -> None:
        """Wait until all is consumed."""
        self._waiting.put(_End())
        self._thread.join()
        self._raise()

    def stop(self) -> None:
        """End after the item being consumed; what waits is dropped."""
        self._stopped = True
        while self._thread.is_alive():
            try:
                self._waiting.put_nowait(_End())
            except queue.Full:
                try:
                    self._waiting.get_nowait()
                except queue.Empty:
                    continue
                continue
            self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while not isinstance(item := self._waiting.get(), _End):
            if self._stopped or self._error is not None:
                continue  # drained, so that nobody waits for room
            try:
                self._consume(item)
            except BaseException as error:  # noqa: BLE001  the next `put` raises it
                self._error = error


@contextmanager
def behind(consume: Callable[[T], None], bound: int) -> Iterator[Behind[T]]:
    """A `Behind` that is finished at the end of the block, or stopped if the block fails."""
    work = Behind(consume, bound)
    try:
        yield work
        work.finish()
    finally:
        work.stop()
