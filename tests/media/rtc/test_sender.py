"""Sending ready payloads and repeating them: each fails when the parts we lean on change."""

from __future__ import annotations

import asyncio

import pytest
from tests.media.loopback import SLICE, Sent, linked, send
from tests.serving import until

from streamlift.config import IceConfig
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.sender import PayloadTrack, SenderTap

pytestmark = pytest.mark.peer


async def test_a_nack_brings_back_packets_older_than_the_stock_history() -> None:
    async with linked() as link:
        await send(link, 20, payloads=20)
        asked = [link.received[i].sequence_number for i in (3, 140, 399)]
        await link.receiver_tap.send_nack(link.received[0].ssrc, asked)
        await until(lambda: len(link.received) == 403, "three packets again")
        assert [p.sequence_number for p in link.received[400:]] == asked
        assert link.sender_tap.resent == 3


async def test_what_is_older_than_the_history_is_not_sent_again() -> None:
    async with linked() as link:
        await send(link, 60)
        ssrc = link.received[0].ssrc
        numbers = [link.received[i].sequence_number for i in (0, 59)]
        await link.receiver_tap.send_nack(ssrc, numbers)
        await until(lambda: len(link.received) == 61, "the newer one")
        assert link.received[60].sequence_number == numbers[1]
        assert link.sender_tap.resent == 1


async def test_repeating_has_a_bound_whatever_a_viewer_asks() -> None:
    async with linked() as link:
        await send(link, 5, payloads=20)
        numbers = [p.sequence_number for p in link.received]
        for _ in range(10):
            await link.receiver_tap.send_nack(link.received[0].ssrc, numbers)
        await until(lambda: link.sender_tap.resent > 256, "what is allowed to be repeated")
        await send(link, 1, start=5)
        assert link.sender_tap.resent <= 256 + 50 + 1


async def test_receiver_reports_tell_the_loss() -> None:
    async with linked() as link:
        await send(link, 5)
        await until(
            lambda: any(r.fraction_lost is not None for r in link.reports), "a receiver report"
        )
        assert link.reports[-1].fraction_lost == 0
        assert await link.sender_tap.packets_lost() == 0


async def test_the_origin_of_the_timestamps_is_known() -> None:
    async with linked() as link:
        await send(link, 3, start=7)
        first = link.received[0].timestamp
        assert link.sender_tap.rtp_origin == (first - 7 * 3600) & 0xFFFFFFFF


async def test_what_was_sent_is_counted() -> None:
    async with linked() as link:
        await send(link, 4, payloads=3)
        assert link.sender_tap.packets_sent == 12
        assert link.sender_tap.octets_sent == 12 * len(SLICE)


async def test_a_sender_tap_needs_no_reports() -> None:
    peer = Peer(IceConfig())
    track = PayloadTrack("audio", asyncio.Queue[Sent]().get)
    SenderTap(peer.add("audio", "sendonly", track).sender, lambda: None)
    await peer.close()
