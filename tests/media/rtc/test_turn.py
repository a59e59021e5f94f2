"""TURN: credentials that a real server takes, and one that never answers."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from scripts.children import bound
from tests.machine import in_time

from streamlift.config import IceConfig, IceServer
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.sdp import Role, read_offer
from streamlift.media.rtc.turn import ice_servers

SECRET = "north"
STUN = IceServer("stun:stun.example.org:3478")


def test_each_time_gives_other_credentials_and_stun_has_none() -> None:
    ice = IceConfig((STUN, IceServer("turn:turn.example.org")), turn_secret=SECRET, turn_ttl_s=60)
    stun, first = ice_servers(ice, 1000)
    _, second = ice_servers(ice, 1001)
    assert stun == STUN
    assert first.username == "1060:streamlift"
    assert second.username == "1061:streamlift"
    assert first.credential != second.credential


def test_without_a_secret_the_servers_are_as_configured() -> None:
    fixed = IceServer("turn:turn.example.org", "me", "word")
    assert ice_servers(IceConfig((fixed,)), 1000) == (fixed,)


async def relayed(ice: IceConfig) -> tuple[bool, float]:
    """Whether an answer names a relay, and how long it took."""
    offering, peer = Peer(IceConfig()), Peer(ice)
    try:
        offering.add("video", "sendonly")
        offer = read_offer(await offering.offer(), Role.PUBLISH)
        peer.add("video", "recvonly")
        start_s = time.monotonic()
        answer = await peer.answer(offer)
        return "typ relay" in answer, time.monotonic() - start_s
    finally:
        await offering.close()
        await peer.close()


@pytest.mark.peer
@pytest.mark.parametrize("ports", [(), (40_200, 40_240)])
async def test_a_server_that_never_answers_costs_a_second(ports: tuple[int, ...]) -> None:
    async def run() -> list[str]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            server = IceServer(f"turn:127.0.0.1:{silent.getsockname()[1]}", "u", "c")
            found, took_s = await relayed(IceConfig((server,), ports=ports))
        assert not found
        assert took_s > 0.9
        return [] if took_s < 4.5 else [f"{took_s:.1f} s"]  # 5 s if it were left to aioice

    await in_time(run)


@asynccontextmanager
async def coturn(folder: Path) -> AsyncIterator[str]:
    path = shutil.which("turnserver")
    if path is None:
        pytest.skip("no TURN server: install the package coturn")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "turn.conf"
    settings.write_text(
        f"listening-port={port}\nlistening-ip=127.0.0.1\nrelay-ip=127.0.0.1\nuse-auth-secret\n"
        f"static-auth-secret={SECRET}\nrealm=example.org\nno-tls\nno-dtls\nno-cli\n"
        f"log-file=stdout\npidfile={folder}/pid\nuserdb={folder}/db\n"
    )
    process = await asyncio.create_subprocess_exec(
        *bound(path, "-c", str(settings)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield f"turn:127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


@pytest.mark.client
async def test_coturn_takes_the_credentials_and_refuses_others(tmp_path: Path) -> None:
    async with coturn(tmp_path) as url:
        now_s = time.time()
        for secret, wanted in ((SECRET, True), ("south", False)):
            ice = IceConfig((IceServer(url),), turn_secret=secret)
            made = IceConfig(ice_servers(ice, now_s))
            deadline_s = time.monotonic() + 10
            # It listens a moment after it has started.
            while not (found := (await relayed(made))[0]) and wanted:
                assert time.monotonic() < deadline_s, "coturn does not take the credentials"
            assert found is wanted
