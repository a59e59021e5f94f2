"""Two peers of ours on loopback: one sends ready payloads, the other taps its receivers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.serving import until

from streamlift.config import IceConfig
from streamlift.frames import Codec
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.packet import MediaPacket
from streamlift.media.rtc.receiver import ReceiverTap
from streamlift.media.rtc.sdp import Role, read_offer
from streamlift.media.rtc.sender import PayloadTrack, ReceiverReport, SenderTap

__all__ = ["SLICE", "Link", "Sent", "linked", "offer_of", "send"]

CONNECT_S = 10.0
# One whole NAL unit a packet (RFC 6184 section 5.6): a non-IDR slice.
SLICE = b"\x41" + bytes(80)


@dataclass(frozen=True)
class Sent:
    """Fits `peer.SentFrame`."""

    pts: int
    payloads: Sequence[bytes]


@dataclass
class Link:
    """A sender (which made the offer) and a receiver (which answered it)."""

    sender: Peer
    receiver: Peer
    offer: str
    answer: str
    to_send: asyncio.Queue[Sent] = field(default_factory=asyncio.Queue)
    received: list[MediaPacket] = field(default_factory=list)
    keyframes_asked: int = 0
    reports: list[ReceiverReport] = field(default_factory=list)
    sender_tap: SenderTap = field(init=False)
    receiver_tap: ReceiverTap = field(init=False)

    def ask_keyframe(self) -> None:
        self.keyframes_asked += 1


@asynccontextmanager
async def linked(
    *, codec: Codec = Codec.H264, edit_offer: Callable[[str], str] = lambda sdp: sdp
) -> AsyncIterator[Link]:
    """Connect the two; `edit_offer` changes the offer on its way."""
    link = Link(Peer(IceConfig()), Peer(IceConfig()), "", "")
    try:
        track = PayloadTrack("video", link.to_send.get)
        sending = link.sender.add("video", "sendonly", track)
        link.sender.prefer(sending, [codec])
        link.sender_tap = SenderTap(
            sending.sender, link.ask_keyframe, on_report=link.reports.append
        )
        receiving = link.receiver.add("video", "recvonly")
        link.receiver.prefer(receiving, list(Codec))
        link.receiver_tap = ReceiverTap(receiving.receiver, link.received.append)
        link.offer = edit_offer(await link.sender.offer())
        link.answer = await link.receiver.answer(read_offer(link.offer, Role.PUBLISH))
        await link.sender.accept(link.answer)
        async with asyncio.timeout(CONNECT_S):
            assert await link.sender.wait_connected()
            assert await link.receiver.wait_connected()
        yield link
    finally:
        await link.sender.close()
        await link.receiver.close()


async def offer_of(*kinds: str, direction: str = "sendonly") -> str:
    peer = Peer(IceConfig())
    try:
        for kind in kinds:
            peer.add(kind, direction)
        return await peer.offer()
    finally:
        await peer.close()


async def send(link: Link, count: int, *, start: int = 0, payloads: int = 1) -> None:
    for number in range(start, start + count):
        link.to_send.put_nowait(Sent(3600 * number, [SLICE] * payloads))
    wanted = len(link.received) + count * payloads
    await until(lambda: len(link.received) >= wanted, f"{wanted} packets")
