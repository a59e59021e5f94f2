"""What reaches a connection from the network: nothing a stranger sends, and no datagram ends it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from aioice.stun import parse_message

from streamlift.errors import reason_of

__all__ = ["LONGEST_DATAGRAM", "MOST_REMOTES", "Guard"]

logger = logging.getLogger(__name__)

LONGEST_DATAGRAM = 1500
"""What the SRTP library holds at most; nothing longer crosses an Ethernet in one piece either."""
MOST_REMOTES = 100
"""Addresses one peer may check from; each becomes a pair with a task of its own (RFC 8445 14.3)."""
_BINDING = 1
_MAGIC = bytes.fromhex("2112a442")


class Guard:
    """Stands before the sockets and the DTLS transport of one connection; counts what it refuses.

    `refused` by reason: `length`, `kind` (no protocol of ours), `stun` (malformed), `stranger`
    (no address that checks were exchanged with), `error` (it made the library raise).
    `authentic` counts media packets that were decrypted: nobody but the peer can send one.
    """

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.authentic = 0
        self.first = asyncio.Event()
        """Set with the first of them."""

    def watch_socket(self, ice: Any, protocol: Any) -> None:
        """Put the guard before one socket; `protocol` is an aioice StunProtocol.

        https://github.com/aiortc/aioice/blob/0.13.0/src/aioice/ice.py (datagram_received)
        """
        stock = protocol.datagram_received

        def receive(data: bytes, addr: tuple[Any, ...]) -> None:
            reason = self._objection(ice, protocol, data, (addr[0], addr[1]))
            if reason is None:
                reason = _attempt(stock, data, addr)
            if reason is not None:
                self.refused[reason] += 1

        protocol.datagram_received = receive

    def watch_relay(self, protocol: Any) -> None:
        """The same before the socket towards a TURN server, which strangers reach as well."""
        inner = getattr(protocol.transport, "_TurnTransport__inner_protocol", None)
        if inner is None:
            return
        stock = inner.datagram_received

        def receive(data: bytes, addr: tuple[Any, ...]) -> None:
            if (reason := _attempt(stock, data, addr)) is not None:
                self.refused[reason] += 1

        inner.datagram_received = receive

    def watch_transport(self, dtls: Any) -> None:
        """Let no datagram end the loop that reads them, and count what was decrypted.

        https://github.com/aiortc/aiortc/blob/1.16.0/src/aiortc/rtcdtlstransport.py (_recv_next)
        """
        stock_next, stock_rtp, stock_rtcp = (
            dtls._recv_next,
            dtls._handle_rtp_data,
            dtls._handle_rtcp_data,
        )

        async def receive_next() -> None:
            try:
                await stock_next()
            except ConnectionError:
                raise
            except Exception as error:  # noqa: BLE001
                # Broad because a peer may send anything, encrypted too, and the library checks
                # little of it: one bad packet must cost that packet only.
                self.refused["error"] += 1
                if self.refused["error"] == 1:
                    said = reason_of(error)
                    logger.warning("a packet could not be read: %s; more are only counted", said)
                await asyncio.sleep(0)  # were it to fail at once each time, others still run

        async def take_rtp(data: bytes, arrival_time_ms: int) -> None:
            self._note_authentic()
            await stock_rtp(data, arrival_time_ms=arrival_time_ms)

        async def take_rtcp(data: bytes) -> None:
            self._note_authentic()
            await stock_rtcp(data)

        dtls._recv_next = receive_next
        dtls._handle_rtp_data, dtls._handle_rtcp_data = take_rtp, take_rtcp

    def _note_authentic(self) -> None:
        self.authentic += 1
        self.first.set()

    def _objection(
        self, ice: Any, protocol: Any, data: bytes, address: tuple[str, int]
    ) -> str | None:
        """Why the datagram is not let in, or None. Protocols by first byte: RFC 7983 section 7."""
        if not 0 < len(data) <= LONGEST_DATAGRAM:
            return "length"
        if data[0] < 4:
            return _stun_objection(ice, data, address)
        if 128 <= data[0] < 192:
            if len(data) < _shortest_rtp(data):
                return "length"
        elif not 20 <= data[0] < 64:  # DTLS
            return "kind"
        nominated = ice._nominated.get(1)
        if (
            nominated is not None
            and nominated.protocol is protocol
            and nominated.remote_addr == address
        ):
            return None
        return None if _is_checked(ice, protocol, address) else "stranger"


def _shortest_rtp(data: bytes) -> int:
    """Bytes of the header of RTCP (payload types as RFC 5761 section 4 has them) or RTP."""
    return 8 if len(data) > 1 and 192 <= data[1] < 224 else 12


def _stun_objection(ice: Any, data: bytes, address: tuple[str, int]) -> str | None:
    """aioice takes what it cannot parse for media, and raises for some of it."""
    if data[4:8] != _MAGIC or len(data) != 20 + int.from_bytes(data[2:4], "big"):
        return "stun"
    try:
        message = parse_message(data)
    except Exception:  # noqa: BLE001
        # Broad because it unpacks a stranger's bytes with hardly a check: IndexError, struct.error
        # and UnicodeDecodeError were seen.
        return "stun"
    if message.message_method != _BINDING:
        return "stun"
    known = {(c._network_host, c.port) for c in ice._remote_candidates}
    if len(known) >= MOST_REMOTES and address not in known:
        return "stranger"
    return None


def _is_checked(ice: Any, protocol: Any, address: tuple[str, int]) -> bool:
    """Whether that address was checked, which takes the session's secret or a place in its SDP."""
    early = ((addr, p) for _, addr, p in ice._early_checks)
    if any(p is protocol and tuple(addr) == address for addr, p in early):
        return True
    return any(
        pair.protocol is protocol and pair.remote_addr == address for pair in ice._check_list
    )


def _attempt(receive: Callable[..., None], data: bytes, addr: tuple[Any, ...]) -> str | None:
    try:
        receive(data, addr)
    except Exception:  # noqa: BLE001
        # Broad because the loop would log a traceback for every such datagram, whoever sent it.
        return "error"
    return None
