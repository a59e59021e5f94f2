"""OpenAPI itself, and the live service held against it by Schemathesis, the same each time."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from scripts.children import bound
from tests.serving import light, serving

from streamlift.client import publish
from streamlift.config import AuthConfig, LimitsConfig, OutputsConfig, SourcesConfig

TOKEN = "a-token-for-all-doors"
EXAMPLES = 5
"""Of each call, beside those that its schema's edges make."""
BUDGET_S = 15
"""After it no more is made up; each call has been tried by then on a machine with time."""
LIMIT_S = 150
EXCLUDED = [
    "ignored_auth",  # guesses at tokens are made to wait: `test_rights.py`
    "positive_data_acceptance",  # which addresses may be reached is no matter of a schema
]


@asynccontextmanager
async def shown(url: str) -> AsyncIterator[None]:
    """A stream that is live, so that answers have all their fields; it comes back when ended."""

    async def send() -> None:
        async with publish(url, token=TOKEN, fps=10, wait=True) as publication:
            while True:
                await publication.send(np.zeros((128, 128, 3), np.uint8))

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.peer
async def test_the_service_does_what_its_schema_says_whatever_is_asked(tmp_path: Path) -> None:
    tokens, here = (TOKEN,), ("127.0.0.1",)
    config = light(
        auth=AuthConfig(publish=tokens, view=tokens, control=tokens, link_secret="s" * 32),
        limits=LimitsConfig(handshakes_per_address=64),
        sources=SourcesConfig(allowed_hosts=here),
        outputs=OutputsConfig(allowed_hosts=here),
    )
    command = Path(sys.executable).with_name("schemathesis")
    async with serving(config) as service, shown(service.whip("demo")):
        await service.live("demo")
        process = await asyncio.create_subprocess_exec(
            *bound(str(command), "--no-color", "run", f"{service.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {TOKEN}"),
            *("--generation-deterministic", "--generation-with-security-parameters", "false"),
            *("--max-examples", str(EXAMPLES), "--max-time", str(BUDGET_S)),
            *("--phases", "examples,coverage,fuzzing", "--continue-on-failure"),
            *("--checks", "all", "--exclude-checks", ",".join(EXCLUDED), "--warnings", "off"),
            *("--exclude-path", "/api/v1/events"),  # does not end
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
            env={
                **{k: v for k, v in os.environ.items() if k != "PYTHONASYNCIODEBUG"},
                "PYTHONPATH": os.pathsep.join(sys.path),
                "SCHEMATHESIS_HOOKS": "tests.api.fuzz_hooks",
            },
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                output = (await process.communicate())[0].decode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, output[-8000:]
        tried = re.search(r"(\d+) generated", output)
        assert tried, output[-2000:]
        assert int(tried[1]) >= 40
        await service.live("demo")
