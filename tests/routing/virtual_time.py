"""An event loop whose time moves only when nothing is left to do, so that hours take moments."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")


class _NeverWaits(selectors.DefaultSelector):
    """Instead of sleeping until the next timer, moves the loop's time there."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise AssertionError("every task waits and no timer is set: the test hangs here")
        if not ready and timeout is not None:
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _NeverWaits()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual.now_s


class LoopClock:
    """The running loop's time, as the service's clock."""

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on a virtual loop, asyncio debug on."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(debug=True, loop_factory=VirtualLoop) as runner:
            runner.get_loop().slow_callback_duration = 60.0  # virtual time proves nothing there
            runner.run(test(*args, **kwargs))

    return run


async def settle(turns: int = 20) -> None:
    """Let all ready tasks run; takes no time."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait, in virtual time, for a condition."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - the condition is about other objects
            await asyncio.sleep(0.001)


async def ended(work: Awaitable[object]) -> None:
    """Await something that must end within ten virtual seconds."""
    async with asyncio.timeout(10.0):
        await work
