"""coturn, started by the compose file's own command with the configuration that comes with it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from scripts.children import bound
from tests.docker.manifests import DOCKER, read_yaml
from tests.media.rtc.test_turn import relayed

from streamlift.config import IceConfig, IceServer
from streamlift.media.rtc.turn import ice_servers

SECRET = "north"


@pytest.mark.client
async def test_the_turn_server_takes_every_line_and_the_services_credentials(
    tmp_path: Path,
) -> None:
    if shutil.which("turnserver") is None:
        pytest.skip("no TURN server: install the package coturn")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mine = tmp_path / "given.conf"
    mine.write_text(
        (DOCKER / "coturn" / "turnserver.conf")
        .read_text(encoding="utf-8")
        .replace("listening-port=3478", f"listening-port={port}\nlistening-ip=127.0.0.1")
        .replace("/tmp/", f"{tmp_path}/")
    )
    turn = read_yaml(DOCKER / "compose.yaml")["services"]["turn"]
    (script,) = turn["command"]
    script = script.replace("$$", "$").replace("/tmp/", f"{tmp_path}/")
    script = script.replace("/etc/coturn/turnserver.conf", str(mine))
    process = await asyncio.create_subprocess_exec(
        *bound(*turn["entrypoint"], script),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"TURN_SECRET": SECRET, "PATH": "/usr/bin:/bin"},
    )
    try:
        ice = IceConfig((IceServer(f"turn:127.0.0.1:{port}"),), turn_secret=SECRET)
        made = IceConfig(ice_servers(ice, time.time()))
        deadline_s = time.monotonic() + 10
        while not (await relayed(made))[0]:
            assert process.returncode is None
            assert time.monotonic() < deadline_s, "coturn does not take the credentials"
    finally:
        if process.returncode is None:
            process.kill()
        said = (await process.communicate())[0].decode()
    assert "Bad configuration" not in said
    assert SECRET not in said
    written = tmp_path / "turnserver.conf"
    assert written.stat().st_mode & 0o077 == 0
    assert written.read_text().endswith(f"static-auth-secret={SECRET}\n")


def test_without_a_secret_the_turn_server_does_not_start(tmp_path: Path) -> None:
    turn = read_yaml(DOCKER / "compose.yaml")["services"]["turn"]
    (script,) = turn["command"]
    ended = subprocess.run(
        [*turn["entrypoint"], script.replace("$$", "$").replace("/tmp/", f"{tmp_path}/")],
        stderr=subprocess.PIPE,
        env={"TURN_SECRET": "", "PATH": "/usr/bin:/bin"},
        timeout=30,
        check=False,
    )
    assert ended.returncode
    assert b"TURN_SECRET" in ended.stderr
    assert not list(tmp_path.iterdir())
