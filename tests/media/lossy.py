"""A bad network inside one peer: RTP lost and late before SRTP sees it, as on the wire.

Loss after SRTP would make every retransmission a replay.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from streamlift.media.rtc.connection import Peer

__all__ = ["BadNetwork"]


class BadNetwork:
    """What arrives at `peer` is lost with chance `loss`, which may be changed, and delayed by
    `delay_s` +- `jitter_s`.

    Call `aclose` at the end. RTCP and DTLS are delayed but not lost.
    """

    def __init__(
        self, peer: Peer, *, loss: float, delay_s: float, jitter_s: float, seed: int
    ) -> None:
        transport: Any = peer.connection.getTransceivers()[0].receiver.transport.transport
        self._stock: Callable[[], Awaitable[bytes]] = transport._recv
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._chance = random.Random(seed)
        self.loss, self._delay_s, self._jitter_s = loss, delay_s, jitter_s
        self.lost = 0
        self.passed = 0
        self._loop = asyncio.get_running_loop()
        self._reading: asyncio.Task[None] | None = None
        transport._recv = self._recv

    async def _recv(self) -> bytes:
        # The first call comes when the connection is there; before it, there is nothing to read.
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        data = await self._arrived.get()
        if data is None:
            raise ConnectionError
        return data

    async def _read(self) -> None:
        try:
            while True:
                data = await self._stock()
                if _is_rtp(data) and self._chance.random() < self.loss:
                    self.lost += 1
                    continue
                self.passed += 1
                spread_s = self._jitter_s * (2 * self._chance.random() - 1)
                self._loop.call_later(
                    max(0.0, self._delay_s + spread_s), self._arrived.put_nowait, data
                )
        except ConnectionError:
            self._arrived.put_nowait(None)

    async def aclose(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])


def _is_rtp(data: bytes) -> bool:
    """RFC 7983 and RFC 5761: RTP by its first byte, RTCP by its packet type."""
    return len(data) > 1 and 128 <= data[0] <= 191 and not 192 <= data[1] <= 223
