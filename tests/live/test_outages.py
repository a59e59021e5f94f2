"""Networks and peers that stop for a while, or for good, without a word."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import aioice.ice
import pytest
from tests.clips import coded_clip, decode
from tests.machine import in_time
from tests.media.lossy import BadNetwork
from tests.peers import publishing, watching
from tests.serving import Served, serving

from streamlift.frames import Codec

pytestmark = pytest.mark.peer

OUTAGE_S = 3.0
BACK_S = 1.0


def network_of(session: Any) -> BadNetwork:
    return BadNetwork(session.peer._peer, loss=0.0, delay_s=0.0, jitter_s=0.0, seed=1)


async def test_a_network_that_is_gone_for_three_seconds_costs_no_session() -> None:
    """Fault 6: pictures are back within a second, in the same session."""

    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        async with serving() as served, publishing(served.whip(), coded_clip()):
            await served.live()
            (session,) = served.parts.sessions
            network = network_of(session)
            try:
                async with watching(served.whep()) as viewer:
                    await viewer.wait_more(10)
                    network.loss = 1.0
                    await asyncio.sleep(OUTAGE_S)
                    assert network.lost > 0
                    before = len(viewer.units)
                    network.loss, ended_s = 0.0, loop.time()
                    await viewer.wait_units(before + 2)
                    back_s = loop.time() - ended_s
                    await viewer.wait_more(10)
                assert session in served.parts.sessions
                assert served.state() == "live"
            finally:
                await network.aclose()
        pictures = decode([unit for _, unit in viewer.units], Codec.H264)
        assert len(pictures) == len(viewer.units), "what viewers get is never damaged"
        return [] if back_s <= BACK_S else [f"back after {back_s:.2f} s"]

    await in_time(run)


async def test_a_viewer_that_stops_reading_is_let_go_and_the_others_see_all(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 7: a process that was stopped answers no check; 30 s in the standard (RFC 7675)."""
    async with publishing(service.whip(), coded_clip(gop=25)):
        await service.live()
        async with watching(service.whep()) as other:
            monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.1)
            async with watching(service.whep(), delete=False) as stopped:
                await stopped.wait_units(3)
                sessions = len(service.parts.sessions)
                transceiver: Any = stopped.peer.connection.getTransceivers()[0]
                ice = transceiver.receiver.transport.transport._connection
                for protocol in ice._protocols:
                    protocol.datagram_received = lambda *_: None
                async with asyncio.timeout(20):
                    while len(service.parts.sessions) == sessions:
                        await other.wait_more(5)
            await other.wait_more(10)
            steps = {(b - a) % 2**32 for (a, _), (b, _) in pairwise(other.units)}
            assert max(steps) < 90_000, "the other one had a gap of a second"
