"""The ICE agent of one connection: where its sockets are bound, and when it is gone."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import socket
from collections.abc import Callable
from typing import Any

from aioice import Candidate
from aioice import ice as aioice_ice
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol, server_reflexive_candidate
from aioice.stun import TransactionError, TransactionFailed

from streamlift.media.rtc.guard import Guard

__all__ = [
    "check",
    "enlarge_receive_buffers",
    "prepare_gathering",
    "query_consent",
    "read_in_runs",
    "take_media_as_consent",
]

logger = logging.getLogger(__name__)

GATHER_S = 1.0
RECEIVE_BUFFER = 2 * 1024 * 1024
RUN = 32
"""Datagrams that are read from one socket before others have their turn: some 5 ms at most."""
LONGEST_READ = 64 * 1024


def prepare_gathering(ice: Any, ports: tuple[int, ...], guard: Guard) -> None:
    """Gather from `ports` (the lowest and the highest UDP port; empty for any), behind the guard.

    A STUN or TURN server that does not answer must not hold up the answer for 5 s.
    """
    gathering = _Gathering(ice, range(ports[0], ports[1] + 1) if ports else range(1), guard)
    ice.get_component_candidates = gathering.gather


def enlarge_receive_buffers(ice: Any) -> None:
    """Room for a whole keyframe burst: the usual 208 KiB overflow at about 90 packets.

    A 1024x1024 keyframe is that large, and arrives at once; on a busy machine the loss was
    thousands of packets (counted by the kernel as UdpRcvbufErrors). The kernel caps the size.
    https://github.com/aiortc/aioice/blob/0.13.0/src/aioice/ice.py (Connection._protocols)
    """
    for protocol in ice._protocols:
        bound = protocol.transport.get_extra_info("socket")
        if bound is not None:  # a TURN allocation has none of its own
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def read_in_runs(protocol: Any) -> None:
    """Read all that waits in a socket, not one datagram a turn of the event loop.

    On a machine whose processors are taken, a turn takes so long that one datagram in each is less
    than what comes. The rest stood in the receive buffer, for seconds, and no clock of ours saw it.
    `protocol` is a DatagramProtocol that keeps its `transport`.
    https://github.com/python/cpython/blob/3.13/Lib/asyncio/selector_events.py
    (_SelectorDatagramTransport._read_ready)
    """
    take = protocol.datagram_received

    def receive(data: bytes, addr: tuple[Any, ...]) -> None:
        take(data, addr)
        transport = protocol.transport
        # Where the loop is of another kind (Windows), the system reads ahead by itself.
        if not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
            return
        for _ in range(RUN - 1):
            bound = getattr(transport, "_sock", None)
            if bound is None or transport.is_closing():
                return
            try:
                data, addr = bound.recvfrom(LONGEST_READ)
            except OSError:
                return  # nothing waits; a fault of the socket is told by the next read
            take(data, addr)

    protocol.datagram_received = receive


def take_media_as_consent(dtls: Any, guard: Guard) -> None:
    """Let what a sender sends count as its consent, beside its answers to our consent checks.

    FFmpeg's WHIP muxer (8.1) sends checks of its own but never answers ours once media flows, and
    would be ended after 30 s. To a peer that only sends we send nothing but feedback.
    https://github.com/aiortc/aioice/blob/0.13.0/src/aioice/ice.py (query_consent)
    """
    ice = dtls.transport._connection
    ice.query_consent = lambda: query_consent(ice, lambda: guard.authentic)


async def query_consent(ice: Any, packets: Callable[[], int]) -> None:
    """Check consent (RFC 7675) until it is lost, then close `ice`; new `packets` are consent."""
    failures, seen = 0, packets()
    while failures < aioice_ice.CONSENT_FAILURES:
        await asyncio.sleep(aioice_ice.CONSENT_INTERVAL * (0.8 + 0.4 * random.random()))  # noqa: S311  spreads checks, no secret
        for pair in ice._nominated.values():
            try:
                await pair.protocol.request(
                    ice.build_request(pair, nominate=False),
                    pair.remote_addr,
                    integrity_key=ice.remote_password.encode("utf8"),
                    retransmissions=0,
                )
                failures = 0
            except TransactionError:
                failures += 1
        if packets() > seen:
            failures, seen = 0, packets()
    ice._query_consent_task = None
    await ice.close()


async def check(ice: Any, patience_s: float) -> float | None:
    """Send a STUN check on the pair in use; the seconds to its answer, None without one."""
    pair = ice._nominated.get(1)
    if pair is None or ice.remote_password is None:
        return None
    now_s = asyncio.get_running_loop().time
    sent_s = now_s()
    try:
        async with asyncio.timeout(patience_s):
            await pair.protocol.request(
                ice.build_request(pair, nominate=False),
                pair.remote_addr,
                integrity_key=ice.remote_password.encode("utf8"),
            )
    except TransactionFailed:
        pass  # a refusal, signed with the session's secret: it is there
    except (TransactionError, TimeoutError):
        return None
    return now_s() - sent_s


class _Gathering:
    """Takes the host candidates of one ICE connection from a range of UDP ports, guarded.

    aioice binds to port 0, has no setting for it, and leaves a machine that is offline without any
    candidate; so the step that binds is replaced on the connection. TURN is left to it.
    https://github.com/aiortc/aioice/blob/0.13.0/src/aioice/ice.py (get_component_candidates)
    """

    def __init__(self, connection: Any, ports: range, guard: Guard) -> None:
        self._connection = connection
        self._ports = ports
        self._guard = guard
        self._stock = connection.get_component_candidates

    async def gather(self, component: int, addresses: list[str]) -> list[Candidate]:
        # Loopback is no candidate for others, but all there is when the machine is offline.
        addresses = addresses or ["127.0.0.1"]
        bound = [p for a in addresses if (p := await self._bind(component, a)) is not None]
        self._connection._protocols += bound
        candidates = [protocol.local_candidate for protocol in bound]
        if (stun := self._connection.stun_server) is not None:
            mapped = (server_reflexive_candidate(p, stun) for p in bound if _is_ipv4(p))
            within = (asyncio.wait_for(request, GATHER_S) for request in mapped)
            found = await asyncio.gather(*within, return_exceptions=True)
            candidates += [f[0] for f in found if isinstance(f, tuple)]  # others timed out
        relayed: list[Candidate] = await self._stock(component, [], timeout=GATHER_S)
        for protocol in self._connection._protocols[len(bound) :]:
            self._guard.watch_relay(protocol)
            self._guard.watch_socket(self._connection, protocol)
        return candidates + relayed

    async def _bind(self, component: int, address: str) -> StunProtocol | None:
        loop = asyncio.get_running_loop()
        # From a random place: a port just closed may still get packets of its last peer.
        start = secrets.randbelow(len(self._ports))
        error: OSError | None = None
        for port in (*self._ports[start:], *self._ports[:start]):
            try:
                transport, protocol = await loop.create_datagram_endpoint(
                    self._protocol, local_addr=(address, port)
                )
            except OSError as refused:
                error = refused
                continue  # taken
            protocol.local_candidate = Candidate(
                foundation=candidate_foundation("host", "udp", address),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host"),
                host=address,
                port=transport.get_extra_info("sockname")[1],
                type="host",
            )
            return protocol
        logger.info("no UDP port at %s could be bound: %s", address, error)
        return None

    def _protocol(self) -> StunProtocol:
        protocol = StunProtocol(self._connection)
        self._guard.watch_socket(self._connection, protocol)
        read_in_runs(protocol)
        return protocol


def _is_ipv4(protocol: StunProtocol) -> bool:
    return ":" not in protocol.local_candidate.host
