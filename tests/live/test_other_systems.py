"""`serve --demo` without what Windows or macOS lacks: taken away here, not run there."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import httpx
import pytest
from tests.commands import START_S, address, running
from tests.serving import until

pytestmark = pytest.mark.peer

FOLDER = Path(__file__).parents[1] / "other_systems"
DEMO_S = 60.0
"""The child that publishes imports as much as the service."""


@pytest.mark.skipif(sys.platform != "linux", reason="takes away what Linux has")
@pytest.mark.parametrize("system", ["win32", "darwin"])
async def test_serve_with_the_demo_needs_nothing_that_only_linux_has(system: str) -> None:
    command = ("serve", "--port", "0", "--demo", "--backend", "bicubic")
    async with running(*command, first_on_path=FOLDER, OTHER_SYSTEM=system) as serve:
        url = await address(serve)

        async with httpx.AsyncClient(timeout=START_S) as client:

            async def plays() -> bool:
                if serve.returncode is not None:
                    pytest.fail((await serve.communicate())[1].decode())
                try:
                    answer = await client.get(f"{url}/api/v1/streams/demo")
                except httpx.ConnectError:
                    return False  # the address is said before the port is open
                return answer.status_code == 200 and answer.json()["state"] == "live"

            await until(plays, "the demo's stream", timeout_s=DEMO_S)
        serve.send_signal(signal.SIGINT)  # Ctrl-C, which Windows has too
        _, told = await asyncio.wait_for(serve.communicate(), START_S)
    assert serve.returncode == 0, told.decode()
    assert "Traceback" not in told.decode()


@pytest.mark.skipif(sys.platform != "linux", reason="takes away what Linux has")
@pytest.mark.parametrize("what", ["fcntl", "signals", "affinity"])
async def test_what_is_taken_away_is_gone(what: str) -> None:
    """The control: without these the test above would prove nothing."""
    code = {
        "fcntl": "import streamlift.upscalers.weights.lock as l; assert l.fcntl is None",
        "signals": "import asyncio, signal\nasync def f():\n"
        "    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, print)\n"
        "try: asyncio.run(f())\nexcept NotImplementedError: pass\nelse: raise SystemExit(1)",
        "affinity": "import os, sys; assert not hasattr(os, 'sched_getaffinity')\n"
        "assert sys.platform == 'win32'\n"
        "try: open('/proc/self/stat')\nexcept FileNotFoundError: pass\nelse: raise SystemExit(1)",
    }[what]
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": ":".join([str(FOLDER), *sys.path]), "OTHER_SYSTEM": "win32"},
    )
    _, told = await child.communicate()
    assert child.returncode == 0, told.decode()
