"""Runs a command's coroutine so that Ctrl-C and SIGTERM end it as a cancellation does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from streamlift.cli.exit_codes import INTERRUPTED, TERMINATED
from streamlift.portable import on_signal

__all__ = ["run_until_told"]


def run_until_told(work: Coroutine[Any, Any, int]) -> int:
    """The coroutine's exit code, or what says which signal ended it.

    An exception out of a signal's handler would leave the loop in mid-step, and what then fails
    while it is torn down would be logged with its traceback.
    """
    return asyncio.run(_cancelled_when_told(work))


async def _cancelled_when_told(work: Coroutine[Any, Any, int]) -> int:
    task = asyncio.current_task()
    assert task is not None
    told: list[int] = []

    def end(code: int) -> None:
        told.append(code)
        task.cancel()

    for sign, code in ((signal.SIGTERM, TERMINATED), (signal.SIGINT, INTERRUPTED)):
        on_signal(sign, end, code)
    try:
        return await work
    except BaseException:
        if told:
            return told[0]
        raise
