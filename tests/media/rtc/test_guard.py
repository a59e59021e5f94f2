"""Datagrams of strangers and of hostile peers: none ends a session, fills the log or counts."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
from typing import Any

import pylibsrtp
import pytest
from aioice.stun import Class, Message, Method
from tests.media.loopback import SLICE, Link, Sent, linked, send
from tests.serving import until

from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.guard import LONGEST_DATAGRAM, MOST_REMOTES

pytestmark = pytest.mark.peer

DATAGRAMS = 100_000


def agent(peer: Peer) -> Any:
    """The ICE agent of a peer."""
    return peer.connection.getTransceivers()[0].receiver.transport.transport._connection


def stun(rng: random.Random, attributes: bytes, *, length: int | None = None) -> bytes:
    kind = rng.choice((0x0001, 0x0101, 0x0111, 0x0011, 0x0003, rng.randrange(0x4000)))
    size = len(attributes) if length is None else length
    return struct.pack("!HHI", kind, size & 0xFFFF, 0x2112A442) + rng.randbytes(12) + attributes


def attribute(rng: random.Random) -> bytes:
    kinds = (0x0006, 0x0008, 0x0009, 0x0020, 0x0024, 0x8028, 0x802A, rng.randrange(1 << 16))
    value = rng.randbytes(rng.choice((0, 1, 2, 4, 8, 20)))
    said = len(value) if rng.random() < 0.7 else rng.randrange(1 << 16)
    return struct.pack("!HH", rng.choice(kinds), said) + value + bytes(-len(value) % 4)


def datagram(rng: random.Random) -> bytes:
    """Of every kind there is, whole, cut off or absurd."""
    length = rng.choice((0, 1, 2, 3, 11, 12, 13, 19, 20, 21, 100, 1200, 1500, 1501, 3000))
    kind = rng.randrange(7)
    if kind == 0:
        return rng.randbytes(length)
    if kind == 1:
        return stun(rng, b"".join(attribute(rng) for _ in range(rng.randrange(5))))
    if kind == 2:
        return stun(rng, rng.randbytes(length), length=rng.choice((None, rng.randrange(1 << 16))))
    if kind == 3:  # an honest check that does not know the secret
        message = Message(Method.BINDING, Class.REQUEST)
        message.attributes["USERNAME"] = "abcd:efgh"
        message.attributes["PRIORITY"] = rng.randrange(1 << 32)
        message.add_message_integrity(rng.randbytes(16))
        return bytes(message)
    first = rng.choice((20, 21, 22, 23, 25, 63, 64, 127, 128, 144, 191, 192, 255))
    second = rng.choice((0, 96, 200, 201, 205, 224, 254))
    return (bytes((first, second)) + rng.randbytes(length))[: max(1, length)]


async def assail(link: Link, rng: random.Random, count: int) -> None:
    """From strangers, and under the peer's own address, as someone on its path could."""
    targets = [
        (protocol, pair.remote_addr)
        for peer in (link.sender, link.receiver)
        for pair in agent(peer)._nominated.values()
        for protocol in [pair.protocol]
    ]
    assert len(targets) == 2
    for number in range(count):
        protocol, peer_address = targets[number % 2]
        stranger = ("127.0.0.1", rng.randrange(1024, 65536))
        # By the attribute of the instance, as the event loop calls it.
        protocol.datagram_received(datagram(rng), peer_address if number % 5 == 0 else stranger)
        if number % 500 == 0:
            await asyncio.sleep(0)


async def test_a_hundred_thousand_datagrams_end_nobody_and_leave_the_log_short(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with linked() as link:
        await send(link, 3)
        authentic = link.receiver.guard.authentic
        await assail(link, random.Random(20_261), DATAGRAMS)
        await asyncio.sleep(0.1)
        assert link.sender.state == link.receiver.state == "connected"
        for peer in (link.sender, link.receiver):
            assert {"length", "kind", "stun", "stranger"} <= set(peer.guard.refused)
        # RTCP of the peer goes on meanwhile, a few packets a second; of the flood none counts.
        assert link.receiver.guard.authentic - authentic < 200
        await send(link, 3, start=3)
    assert len(caplog.text) < 10_000


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", b"\x80\x60" + bytes(2998), b"\x80\xc8\0", b"\x16" + bytes(1499), bytes(20)],
)
async def test_one_datagram_of_a_stranger_changes_nothing(data: bytes) -> None:
    async with linked() as link:
        await send(link, 1)
        for peer in (link.sender, link.receiver):
            host, port = agent(peer)._nominated[1].protocol.local_candidate.host, 0
            port = agent(peer)._nominated[1].protocol.local_candidate.port
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(data, (host, port))
            await until(lambda p=peer: p.guard.refused.total() == 1, "it to be refused")  # type: ignore[misc]
        await send(link, 2, start=1)
        assert link.sender.state == link.receiver.state == "connected"


async def test_what_a_hostile_peer_encrypts_costs_that_packet_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with linked() as link:
        await send(link, 1)
        dtls: Any = link.receiver.connection.getTransceivers()[0].receiver.transport

        def fail(*_: object) -> None:
            raise IndexError("what the library does with bytes it did not expect")

        dtls._rtp_router.route_rtp, stock = fail, dtls._rtp_router.route_rtp
        for number in range(50):
            link.to_send.put_nowait(Sent(3600 * (number + 1), [SLICE]))
        await until(lambda: link.receiver.guard.refused["error"] >= 50, "all to be counted")
        dtls._rtp_router.route_rtp = stock
        await send(link, 1, start=60)
        assert link.receiver.state == "connected"
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1


async def test_a_peer_may_check_from_many_addresses_but_not_from_any_number() -> None:
    async with linked() as link:
        ice = agent(link.receiver)
        protocol = ice._nominated[1].protocol
        for number in range(3 * MOST_REMOTES):
            message = Message(Method.BINDING, Class.REQUEST)
            message.attributes["USERNAME"] = f"{ice.local_username}:{ice.remote_username}"
            message.attributes["PRIORITY"] = 1
            message.attributes["ICE-CONTROLLING"] = 1
            message.add_message_integrity(ice.local_password.encode())
            protocol.datagram_received(bytes(message), ("127.0.0.1", 20_000 + number))
        assert len(ice._remote_candidates) == MOST_REMOTES
        await send(link, 1)


async def test_a_check_without_a_priority_raises_nothing() -> None:
    async with linked() as link:
        ice = agent(link.receiver)
        message = Message(Method.BINDING, Class.REQUEST)
        message.attributes["USERNAME"] = f"{ice.local_username}:{ice.remote_username}"
        message.add_message_integrity(ice.local_password.encode())
        ice._nominated[1].protocol.datagram_received(bytes(message), ("127.0.0.1", 9))
        assert link.receiver.guard.refused["error"] == 1


def test_the_longest_datagram_is_what_the_srtp_library_holds() -> None:
    session = pylibsrtp.Session(
        pylibsrtp.Policy(key=bytes(30), ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND)
    )
    with pytest.raises(pylibsrtp.Error):  # it is no SRTP, but fits
        session.unprotect(bytes(LONGEST_DATAGRAM))
    with pytest.raises(ValueError, match="too long"):
        session.unprotect(bytes(LONGEST_DATAGRAM + 1))
