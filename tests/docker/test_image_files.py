"""The Dockerfile's promises that can be read without building it, and its health check."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.docker.manifests import DOCKER, ROOT
from tests.serving import light

from docker import healthy
from streamlift.config import ServerConfig

TEXT = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", TEXT, re.M | re.S))


def test_the_base_can_be_given_and_pinned_by_digest() -> None:
    assert re.search(r"^ARG BASE=debian:\w+-slim$", TEXT, re.M)
    assert re.findall(r"^FROM (?!base|build)(\S+) ", TEXT, re.M) == ["${BASE}"]


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_target_runs_without_root_and_says_how_to_see_that_it_is_well(target: str) -> None:
    stage = STAGES[target]
    assert re.search(r"^USER 10001:10001$", stage, re.M)
    assert "healthy.py" in stage.partition("HEALTHCHECK")[2]
    assert json.loads(stage.partition("ENTRYPOINT ")[2].splitlines()[0]) == ["streamlift"]


def test_cpu_comes_before_the_stages_that_load_torch() -> None:
    names = list(STAGES)
    assert names.index("cpu") < names.index("build-cuda") < names.index("cuda")


def test_what_is_copied_is_let_through_by_the_ignore_file() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert all((ROOT / name).exists() for name in allowed)
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "src"} <= allowed


@pytest.mark.parametrize(
    "command",
    [
        ("streamlift", "serve", "--port", "{port}"),
        ("docker-init", "--", "streamlift", "serve", "--config={config}", "--host", "0.0.0.0"),
    ],
)
async def test_a_service_that_answers_is_well_and_one_that_does_not_is_not(
    serve: Callable[..., Any], command: tuple[str, ...], tmp_path: Path
) -> None:
    served = await serve()
    port = served.url.rpartition(":")[2]
    config = tmp_path / "c.yaml"
    config.write_text(f"server: {{port: {port}}}\n")
    words = [word.format(port=port, config=config) for word in command]
    assert await asyncio.to_thread(healthy.check, words) is None
    config.write_text("server: {port: 1}\n")
    gone = [word.format(port=1, config=config) for word in command]
    assert "refused" in (await asyncio.to_thread(healthy.check, gone) or "")


async def test_a_service_with_a_certificate_is_asked_by_tls(
    serve: Callable[..., Any], tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    cert, key = map(str, certificate)
    served = await serve(light(server=ServerConfig(tls_cert=cert, tls_key=key)), tls=True)
    port = served.url.rpartition(":")[2]
    config = tmp_path / "c.yaml"
    config.write_text(
        f"server: {{port: {port}, tls_cert: {cert}, tls_key: {key}}}\n", encoding="utf-8"
    )
    asked = ["streamlift", "serve", "--config", str(config)]
    assert await asyncio.to_thread(healthy.check, asked) is None


@pytest.mark.parametrize("at", ["0.0.0.0:{port}", "127.0.0.1:{port}", "unix:{path}"])
async def test_a_worker_is_well_while_it_listens(at: str, tmp_path: Path) -> None:
    path = tmp_path / "w"
    listens = at.startswith("unix:")

    answered = asyncio.Event()

    async def answer(_: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        out.close()
        await out.wait_closed()
        answered.set()

    if listens:
        door = await asyncio.start_unix_server(answer, path)
    else:
        door = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = 0 if listens else door.sockets[0].getsockname()[1]
    command = ["streamlift", "worker", "--listen", at.format(port=port, path=path)]
    assert await asyncio.to_thread(healthy.check, command) is None
    # In Python 3.11 a closed server does not wait for those that it is talking to.
    async with asyncio.timeout(10):
        await answered.wait()
    door.close()
    await door.wait_closed()
    path.unlink(missing_ok=True)
    assert await asyncio.to_thread(healthy.check, command)


def test_another_program_is_well_as_long_as_it_runs() -> None:
    assert healthy.check(["ray", "start", "--head", "--block"]) is None
