"""Awaiting what must not stop half-way, though whoever awaits it may be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["to_its_end"]

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; a cancellation that comes meanwhile is raised when it has ended.

    `asyncio.shield` alone leaves the work behind, with nobody to wait for it: what it should have
    closed stays open when the loop ends first, and a thread goes on with what its owner has
    closed. For work that ends soon by itself.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # its owner was cancelled; whoever cancelled it asked for no result
    raise cancelled
