"""The commands as child processes, the way a user runs them."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from scripts.children import bound

__all__ = ["START_S", "address", "running"]

START_S = 30.0
"""A process that starts on a busy machine."""


@asynccontextmanager
async def running(
    *arguments: str, first_on_path: Path | None = None, **changes: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command as a child process, which is gone when the block ends.

    `changes`: variables of its environment.
    """
    environment = {
        k: v
        for k, v in os.environ.items()
        if k != "PYTHONASYNCIODEBUG" and not k.startswith("STREAMLIFT_")
    }
    path = sys.path if first_on_path is None else [str(first_on_path), *sys.path]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    environment.update(changes)
    process = await asyncio.create_subprocess_exec(
        *bound(sys.executable, "-m", "streamlift.cli", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def address(serve: asyncio.subprocess.Process) -> str:
    """The address that `serve` says it listens at."""
    assert serve.stdout is not None
    line = (await asyncio.wait_for(serve.stdout.readline(), START_S)).decode()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, line
    return found[0]
