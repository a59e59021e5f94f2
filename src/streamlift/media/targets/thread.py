"""A thread of one's own for calls that compute or may stand still, away from the event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["OwnThread"]

T = TypeVar("T")


class OwnThread:
    """Runs one call after the other. A daemon: a call that never returns keeps no process alive."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # Bounded by those who call: each waits for its answer.
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def do(self, call: Callable[..., T], *arguments: Any) -> T:
        """What the call returns or raises; if this is cancelled, the call is made all the same."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def tell(give: Callable[[Any], None], value: object) -> None:
            if not answer.done():
                give(value)

        def run() -> None:
            try:
                result = call(*arguments)
            except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
                told: tuple[Callable[[Any], None], object] = (answer.set_exception, error)
            else:
                told = (answer.set_result, result)
            with suppress(RuntimeError):  # the loop has ended before
                loop.call_soon_threadsafe(tell, *told)

        self._calls.put(run)
        return await answer

    def close(self, last: Callable[[], None] | None = None) -> None:
        """End after what was asked for, and after `last`; never waits."""
        if last is not None:
            self._calls.put(last)
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
