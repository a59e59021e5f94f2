"""Receiving coded media, and what is sent back: each fails when the parts we lean on change."""

from __future__ import annotations

from typing import Any

import pytest
from aiortc.rtp import RTCP_PSFB_APP, RtcpPsfbPacket, RtpPacket, pack_remb_fci
from tests.media.loopback import SLICE, linked, send
from tests.serving import until

from streamlift.frames import Codec

pytestmark = pytest.mark.peer


async def test_packets_come_to_the_sink_and_none_to_the_stock_decoder() -> None:
    async with linked() as link:
        await send(link, 3, payloads=2)
        assert [p.marker for p in link.received] == [0, 1] * 3
        assert link.received[0].data == b"\0\0\0\1" + SLICE
        assert link.receiver_tap.codec_of(link.received[0].payload_type) is Codec.H264
        receiver: Any = link.receiver.connection.getTransceivers()[0].receiver
        assert receiver._RTCRtpReceiver__decoder_queue.empty()


async def test_the_numbers_of_transport_cc_are_told() -> None:
    numbers: list[int] = []
    async with linked() as link:
        link.receiver_tap.transport_sequence = numbers.append
        transceiver: Any = link.receiver.connection.getTransceivers()[0]
        # The connection hands packets to the attribute of the instance, which is the tap's.
        packet = RtpPacket(payload_type=transceiver._codecs[0].payloadType, payload=SLICE)
        packet.extensions.transport_sequence_number = 77
        await transceiver.receiver._handle_rtp_packet(packet, arrival_time_ms=0)
        assert [p.data for p in link.received] == [b"\0\0\0\1" + SLICE]
    assert numbers == [77]


async def test_a_pli_reaches_the_other_side() -> None:
    async with linked() as link:
        await send(link, 1)
        await link.receiver_tap.send_pli(link.received[0].ssrc)
        await until(lambda: link.keyframes_asked == 1, "the request")


async def test_feedback_of_our_own_making_can_be_sent() -> None:
    async with linked() as link:
        await send(link, 1)
        ssrc = link.received[0].ssrc
        remb = RtcpPsfbPacket(
            fmt=RTCP_PSFB_APP,
            ssrc=link.receiver_tap.rtcp_ssrc,
            media_ssrc=0,
            fci=pack_remb_fci(1_500_000, [ssrc]),
        )
        await link.receiver_tap.send_rtcp(bytes(remb))
        await until(lambda: bool(link.reports), "the report")
        assert link.reports[0].estimate_bps == 1_500_000


async def test_feedback_after_the_end_is_no_error() -> None:
    async with linked() as link:
        tap = link.receiver_tap
    await tap.send_rtcp(b"\x80\xcd\0\0")
