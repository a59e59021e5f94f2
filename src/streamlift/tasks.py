"""Tasks that keep to themselves: what ends badly alone, and what must not stop half-way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from streamlift.errors import StreamliftError

__all__ = ["supervise", "to_its_end"]

log = logging.getLogger(__name__)

T = TypeVar("T")


async def supervise(what: str, work: Awaitable[object]) -> None:
    """Await `work` and never raise, so that the TaskGroup goes on; cancellation passes through.

    `what` names the stream or session in the log. `work` closes what it opened in its own
    `finally`; nothing is restarted here.
    """
    try:
        await work
    except StreamliftError as error:
        log.warning("%s ended: %s", what, error)
    except Exception:
        # Broad on purpose: this is where a task ends, and an error that nobody foresaw in one
        # stream or session must not cancel its siblings in the group.
        log.exception("%s failed", what)


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
