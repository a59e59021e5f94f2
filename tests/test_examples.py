"""The scripts in docs/examples, run as a user does, against a live service."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from scripts.children import bound
from tests.media.remote.scope_server import scope_server
from tests.serving import light, serving, until
from tests.stamped import sending

from streamlift.config import BackendConfig, SourcesConfig

pytestmark = pytest.mark.peer

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
LIMIT_S = 60
TWO = (BackendConfig("bicubic", "bicubic"), BackendConfig("other", "bicubic"))


@asynccontextmanager
async def example(name: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A script as a child process; gone when the block ends."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONASYNCIODEBUG"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    process = await asyncio.create_subprocess_exec(
        *bound(sys.executable, str(EXAMPLES / name), *arguments),
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


async def said(process: asyncio.subprocess.Process) -> str:
    """What it prints, to its end in order."""
    async with asyncio.timeout(LIMIT_S):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


def test_all_that_are_there_are_run_here() -> None:
    run = set(re.findall(r'example\(\s*"(\w+\.py)"', Path(__file__).read_text()))
    assert run == {path.name for path in EXAMPLES.glob("*.py")}


async def test_frames_of_a_generator_are_published() -> None:
    async with serving() as service, example("publish_frames.py", service.whip("gen"), "3") as run:
        await service.live("gen")
        assert "sent 33 frames, dropped 0" in await said(run)


async def test_a_stream_is_watched_as_frames() -> None:
    async with (
        serving() as service,
        sending(service.whip()),
        example("watch_frames.py", service.whep(), "5") as run,
    ):
        lines = (await said(run)).splitlines()
    assert len(lines) == 5
    assert "256x256 mean" in lines[0]


async def test_backends_are_switched_by_content() -> None:
    async with serving(light(backends=TWO)) as service, sending(service.whip()):
        arguments = (service.url, "live", "other", "bicubic", "1")
        async with example("switch_by_content.py", *arguments) as run:
            assert "from bicubic to other" in await said(run)
            await until(
                lambda: service.parts.router.stream("live").snapshot().backend == "other",
                "the switch",
            )


async def test_events_are_followed() -> None:
    async with (
        serving() as service,
        example("follow_events.py", service.url, "2") as run,
        sending(service.whip()),
    ):
        lines = (await said(run)).splitlines()
    assert "live stream.state: waiting -> starting" in lines[0]
    assert "live stream.state: starting -> live" in lines[1]


async def test_a_stream_is_pulled_from_scope() -> None:
    sources = SourcesConfig(allowed_hosts=("127.0.0.1",))
    async with (
        scope_server() as (scope, url),
        serving(light(sources=sources)) as service,
        example("pull_from_scope.py", service.url, url) as run,
    ):
        output = await said(run)
    assert "live" in output
    assert "the first picture is" in output
    assert any("bear" in str(message) for message in scope.messages)
