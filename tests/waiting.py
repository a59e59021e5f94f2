"""Waiting for what a test waits for, instead of for time; imports nothing of the service."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

__all__ = ["until"]

POLL_S = 0.02


async def until(
    check: Callable[[], bool | Awaitable[bool]],
    what: str,
    *,
    timeout_s: float = 10.0,
    show: Callable[[], object] = lambda: "",
) -> None:
    """Look again and again until `check` holds; fail with `what` was waited for, and `show()`."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                held = check()
                if await held if inspect.isawaitable(held) else held:
                    return
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"waited {timeout_s:g} s in vain for {what} {show()}") from None
