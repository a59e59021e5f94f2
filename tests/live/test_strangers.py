"""A flood of strangers' datagrams against every kind of session at once: all of them stay up."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.clips import coded_clip
from tests.media.datagrams import datagram
from tests.peers import publishing, watching
from tests.serving import Served, light, until

from streamlift.config import BackendConfig, OutputsConfig, SourcesConfig
from streamlift.media.rtc.guard import Guard
from streamlift.media.rtc.ice import prepare_gathering

pytestmark = pytest.mark.peer

DATAGRAMS = 100_000
HERE = ("127.0.0.1",)


@dataclasses.dataclass(frozen=True)
class Agent:
    """What stands at the network for one session."""

    ice: Any
    guard: Guard


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> list[Agent]:
    """Of every session that is opened from now on, at either end."""
    found: list[Agent] = []

    def noted(ice: Any, ports: tuple[int, ...], guard: Guard) -> None:
        found.append(Agent(ice, guard))
        prepare_gathering(ice, ports, guard)

    monkeypatch.setattr("streamlift.media.rtc.connection.prepare_gathering", noted)
    return found


async def test_a_hundred_thousand_datagrams_end_no_publisher_viewer_pull_or_push(
    serve: Callable[..., Awaitable[Served]],
    agents: list[Agent],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    service = await serve(
        light(
            backends=(BackendConfig("bicubic", "bicubic", slots=8),),
            sources=SourcesConfig(HERE),
            outputs=OutputsConfig(HERE),
        )
    )
    async with four_kinds(service):
        assert len(agents) == 8, "publisher, viewer, pull and push, each with its other end"
        authentic = sum(agent.guard.authentic for agent in agents)
        await assail(agents, random.Random(20_261))
        flooded = sum(agent.guard.authentic for agent in agents) - authentic
        assert flooded < DATAGRAMS / 10  # the peers' own, which go on meanwhile
        for agent in agents:
            assert {"length", "kind", "stun", "stranger"} <= set(agent.guard.refused)
        before = decoded(service)
        await until(
            lambda: all(now > 10 + before[name] for name, now in decoded(service).items()),
            "all streams to go on",
            timeout_s=30,
        )
        assert {s.name: s.state for s in service.parts.router.streams()} == {
            "live": "live",
            "pulled": "live",
            "pushed": "live",
        }
        assert [s.peer.state for s in service.parts.sessions] == ["live"] * 4
        (output,) = (await service.read("/api/v1/streams/live/outputs"))["outputs"]
        assert (output["state"], output["connections"]) == ("live", 1)
        assert (await service.read("/api/v1/streams/pulled/source"))["connections"] == 1
        assert len(agents) == 8, "nobody had to connect again"
    # A busy machine's stalls are told with the place where the loop stands, whoever sends what.
    said = [r.getMessage() for r in caplog.records if not r.name.endswith("loop_lag")]
    assert len("\n".join(said)) < 10_000


@asynccontextmanager
async def four_kinds(service: Served) -> AsyncIterator[None]:
    """A publisher and its viewer; the stream pulled from here, and pushed to here."""
    async with publishing(service.whip(), coded_clip(gop=25)):
        await service.live()
        async with watching(service.whep()) as viewer, service.http() as http:
            output = {"type": "whip", "url": service.whip("pushed")}
            pushed = await http.post("/api/v1/streams/live/outputs", json=output)
            assert pushed.status_code == 201, pushed.text
            source = {"kind": "whep", "url": service.whep()}
            body = {"name": "pulled", "source": source}
            pulled = await http.post("/api/v1/streams", json=body)
            assert pulled.status_code == 201, pulled.text
            await service.live("pushed", timeout_s=30)
            await service.live("pulled", timeout_s=30)
            yield
            await viewer.wait_more(10)


def decoded(service: Served) -> dict[str, int]:
    return {s.name: s.frames.decoded for s in service.parts.router.streams()}


async def assail(agents: list[Agent], rng: random.Random) -> None:
    """From strangers, and under the peer's own address, as someone on its path could."""
    targets = [(a.ice._nominated[1].protocol, a.ice._nominated[1].remote_addr) for a in agents]
    for number in range(DATAGRAMS):
        protocol, peer_address = targets[number % len(targets)]
        stranger = ("127.0.0.1", rng.randrange(1024, 65536))
        # By the attribute of the instance, as the event loop calls it.
        sender = peer_address if number % 5 == 0 else stranger
        protocol.datagram_received(datagram(rng), sender)
        if number % 500 == 0:
            await asyncio.sleep(0.005)  # media goes on
