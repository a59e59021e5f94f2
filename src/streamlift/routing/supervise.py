"""Keeps one task's failure from its neighbours: for the children of a shared TaskGroup."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from streamlift.errors import StreamliftError

__all__ = ["supervise"]

log = logging.getLogger(__name__)


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
