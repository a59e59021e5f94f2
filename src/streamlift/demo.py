"""The demo's publisher: a child process that publishes a clip or the built-in scene."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from dataclasses import dataclass

from streamlift.portable import die_with_parent

__all__ = ["STREAM", "Demo", "run_demo"]

logger = logging.getLogger(__name__)

STREAM = "demo"
_BITRATE = "2000000"
"""What a publisher of 512x512 sends; every packet costs the sender and the service time."""
_RESTART_S = 2.0
_STOP_S = 3.0


@dataclass(frozen=True, slots=True)
class Demo:
    """Publish something to stream `demo`: a clip over and over, or the built-in moving scene.

    `base_url` is where this service can be reached from the machine itself.
    """

    base_url: str
    clip: str | None = None


async def run_demo(demo: Demo, token: str | None) -> None:
    """Keep a child process publishing with `token`; a real WHIP client, like any other."""
    command = [sys.executable, "-m", "streamlift.cli", "publish", "--wait", "--bitrate", _BITRATE]
    command += ["--demo"] if demo.clip is None else ["--loop", demo.clip]
    command.append(f"{demo.base_url}/whip/{STREAM}")
    environment = dict(os.environ)
    if token is not None:
        # Not on the command line, where every user of the machine could read it.
        environment["STREAMLIFT_TOKEN"] = token
    while True:
        child = await asyncio.create_subprocess_exec(
            *command, env=environment, preexec_fn=die_with_parent()
        )
        try:
            status = await child.wait()
        finally:
            await _stop(child)
        logger.warning("the demo publisher ended with status %s; starting it again", status)
        await asyncio.sleep(_RESTART_S)


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    child.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_S):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
