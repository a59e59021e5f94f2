"""Where sockets are bound, and consent: each fails when the parts we lean on change."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import aioice.ice
import pytest
from aioice.stun import Message, TransactionTimeout
from tests.media.loopback import linked, offer_of

from streamlift.config import IceConfig
from streamlift.errors import Overloaded
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.ice import query_consent
from streamlift.media.rtc.sdp import Role, read_offer

pytestmark = pytest.mark.peer


async def test_media_ports_come_from_the_configured_range() -> None:
    ice = IceConfig(ports=(40_100, 40_140))
    peer = Peer(ice)
    peer.add("video", "recvonly")
    answer = await peer.answer(read_offer(await offer_of("video"), Role.PUBLISH))
    await peer.close()
    ports = [int(line.split()[5]) for line in answer.split("\r\n") if "a=candidate:" in line]
    assert ports
    assert all(40_100 <= port <= 40_140 for port in ports)


def unused_port() -> int:
    """Below what the kernel gives out by itself, so that no other socket of a test has it."""
    for port in range(20_000, 32_000):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port
    raise AssertionError("no free port")


async def test_a_full_range_is_an_overload() -> None:
    port = unused_port()
    ice = IceConfig(ports=(port, port))
    offer = read_offer(await offer_of("video"), Role.PUBLISH)
    first, second = Peer(ice), Peer(ice)
    try:
        for peer in (first, second):
            peer.add("video", "recvonly")
        await first.answer(offer)
        with pytest.raises(Overloaded, match="UDP ports"):
            await second.answer(offer)
    finally:
        await first.close()
        await second.close()


async def test_a_lost_consent_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    # 30 s in the standard (RFC 7675 section 5.1) and in aioice.
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.02)
    async with linked() as link:
        transport = link.sender.connection.getTransceivers()[0].receiver.transport.transport
        for protocol in transport._connection._protocols:
            protocol.transport.abort()  # vanishes without a word
        async with asyncio.timeout(20):
            await link.receiver.wait_gone()
        assert link.receiver.state in ("failed", "closed")


class _SilentPair:
    """A nominated pair whose peer never answers a check."""

    remote_addr = ("192.0.2.9", 9)

    @property
    def protocol(self) -> _SilentPair:
        return self

    async def request(self, *_: object, **__: object) -> None:
        raise TransactionTimeout


class _SilentIce:
    """As much of aioice's Connection as the consent check leans on."""

    remote_password = "secret"
    _query_consent_task: object = None

    def __init__(self) -> None:
        self._nominated = {1: _SilentPair()}
        self.checks = 0
        self.closed = False

    def build_request(self, pair: _SilentPair, *, nominate: bool) -> None:
        self.checks += 1

    async def close(self) -> None:
        self.closed = True


async def test_a_sender_that_answers_no_check_stays_while_it_sends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # FFmpeg's WHIP muxer answers none once media flows.
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.001)
    ice = _SilentIce()
    packets = iter(range(20))
    last = 0

    def count() -> int:
        nonlocal last
        last = next(packets, last)
        return last

    async with asyncio.timeout(20):
        await query_consent(ice, count)
    assert ice.closed
    assert ice.checks > 3 * aioice.ice.CONSENT_FAILURES / 2


async def test_a_check_measures_the_round_trip_and_tells_when_nobody_answers() -> None:
    async with linked() as link:
        answered = await link.receiver.check()
        assert answered is not None
        assert 0 < answered < 1
        for protocol in _agent(link.sender)._protocols:
            protocol.transport.abort()  # vanishes without a word
        assert await link.receiver.check(0.1) is None
    assert await link.receiver.check() is None  # closed


async def test_a_refusal_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    async with linked() as link:
        ice = _agent(link.sender)

        def refuse(message: Message, addr: tuple[str, int], protocol: object) -> None:
            ice.respond_error(message, addr, protocol, (487, "Role Conflict"))

        monkeypatch.setattr(ice, "request_received", refuse)
        assert await link.receiver.check() is not None


def _agent(peer: Peer) -> Any:
    return peer.connection.getTransceivers()[0].receiver.transport.transport._connection
