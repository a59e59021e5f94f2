"""Datagrams of strangers and of hostile peers: none ends a session, fills the log or counts."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pylibsrtp
import pytest
from aioice.stun import Class, Message, Method
from tests.media.loopback import SLICE, Sent, linked, send
from tests.serving import until

from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.guard import LONGEST_DATAGRAM, MOST_REMOTES

pytestmark = pytest.mark.peer


def agent(peer: Peer) -> Any:
    """The ICE agent of a peer."""
    return peer.connection.getTransceivers()[0].receiver.transport.transport._connection


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
