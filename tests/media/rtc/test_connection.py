"""The private parts of aiortc we lean on: each of these fails when they change."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import suppress
from typing import Any

import aioice.ice
import pytest
from aioice.stun import TransactionTimeout
from aiortc import RTCPeerConnection
from aiortc.rtp import RTCP_PSFB_APP, RtcpPsfbPacket, RtpPacket, pack_remb_fci
from tests.media.loopback import Link, Sent, linked
from tests.serving import until

from streamlift.config import IceConfig
from streamlift.errors import Overloaded
from streamlift.frames import Codec
from streamlift.media.rtc.connection import PayloadTrack, Peer, SenderTap, query_consent
from streamlift.media.rtc.sdp import Role, read_fragment, read_offer
from streamlift.media.rtc.transport_cc import EXTENSION_URI

pytestmark = pytest.mark.peer

# One whole NAL unit a packet (RFC 6184 section 5.6): a non-IDR slice.
SLICE = b"\x41" + bytes(80)


async def offer_of(*kinds: str, direction: str = "sendonly") -> str:
    peer = Peer(IceConfig())
    try:
        for kind in kinds:
            peer.add(kind, direction)
        return await peer.offer()
    finally:
        await peer.close()


def with_transport_cc(sdp: str) -> str:
    """What a browser offers and aiortc does not."""
    payload_types = re.findall(r"a=rtpmap:(\d+) (?:H264|VP8)/", sdp)
    lines = [f"a=rtcp-fb:{pt} transport-cc" for pt in payload_types]
    lines.append(f"a=extmap:9 {EXTENSION_URI}")
    return sdp.replace("a=mid:", "\r\n".join(lines) + "\r\na=mid:", 1)


async def send(link: Link, count: int, *, start: int = 0, payloads: int = 1) -> None:
    for number in range(start, start + count):
        link.to_send.put_nowait(Sent(3600 * number, [SLICE] * payloads))
    wanted = len(link.received) + count * payloads
    await until(lambda: len(link.received) >= wanted, f"{wanted} packets")


async def test_the_names_we_replace_or_read_exist() -> None:
    connection = RTCPeerConnection()
    transceiver = connection.addTransceiver("video")
    sender, receiver = transceiver.sender, transceiver.receiver
    for name in (
        *("rtp_history", "packet_count", "octet_count", "rtp_timestamp", "ntp_timestamp", "rtt"),
        *("rtp_started", "rtp_exited", "mid", "rtp_header_extensions_map"),
    ):
        assert hasattr(sender, f"_RTCRtpSender__{name}"), name
    for name in (
        "_run_rtp",
        "_send_keyframe",
        "_retransmit",
        "_handle_rtcp_packet",
        "_ssrc",
        "_stream_id",
    ):
        assert hasattr(sender, name), name
    for name in ("jitter_buffer", "nack_generator", "remote_bitrate_estimator", "codecs"):
        assert hasattr(receiver, f"_RTCRtpReceiver__{name}"), name
    assert hasattr(receiver, "_RTCRtpReceiver__rtcp_ssrc")
    for name in ("_handle_rtp_packet", "_send_rtcp_pli", "_send_rtcp_nack"):
        assert hasattr(receiver, name), name
    assert hasattr(transceiver, "_codecs")
    assert hasattr(transceiver, "_headerExtensions")
    assert callable(receiver.transport._set_role)
    assert callable(receiver.transport._send_rtp)
    ice = receiver.transport.transport._connection
    assert isinstance(ice, aioice.ice.Connection)
    assert ice._protocols == []
    await connection.close()


# ---- answering ----


async def test_an_open_dtls_role_is_answered_passive_and_a_passive_one_active() -> None:
    for offered, answered in (("actpass", "passive"), ("passive", "active")):

        def take_role(sdp: str, role: str = offered) -> str:
            return sdp.replace("setup:actpass", f"setup:{role}")

        async with linked(edit_offer=take_role) as link:
            assert f"a=setup:{answered}" in link.answer


async def test_transport_cc_is_negotiated_with_a_publisher_and_remb_is_not() -> None:
    peer = Peer(IceConfig())
    peer.add("video", "recvonly")
    offer = read_offer(with_transport_cc(await offer_of("video")), Role.PUBLISH)
    answer = await peer.answer(offer)
    await peer.close()
    assert f"a=extmap:9 {EXTENSION_URI}" in answer
    assert "transport-cc" in answer
    assert "goog-remb" not in answer


async def test_a_viewer_keeps_remb() -> None:
    peer = Peer(IceConfig())
    peer.add("video", "sendonly", PayloadTrack("video", asyncio.Queue[Sent]().get))
    text = with_transport_cc(await offer_of("video", direction="recvonly"))
    answer = await peer.answer(read_offer(text, Role.VIEW))
    await peer.close()
    assert "goog-remb" in answer
    assert "transport-cc" not in answer


async def test_audio_and_video_are_one_media_stream() -> None:
    streams = re.findall(r"a=msid:(\S+) (\S+)", await offer_of("video", "audio"))
    assert len(streams) == 2
    assert streams[0][0] == streams[1][0]
    assert streams[0][1] != streams[1][1]


async def test_the_codec_is_ours_to_choose() -> None:
    for codec in Codec:
        peer = Peer(IceConfig())
        peer.prefer(peer.add("video", "recvonly"), [codec])
        answer = await peer.answer(read_offer(await offer_of("video"), Role.PUBLISH))
        await peer.close()
        names = set(re.findall(r"a=rtpmap:\d+ (\w+)/", answer))
        assert names == {codec.upper(), "rtx"}


async def test_candidates_that_come_later_are_used() -> None:
    kept: list[str] = []

    def strip(sdp: str) -> str:
        lines = sdp.split("\r\n")
        kept.extend(line for line in lines if line.startswith("a=candidate:"))
        return "\r\n".join(line for line in lines if not line.startswith("a=candidate:"))

    async with linked(edit_offer=strip) as link:
        await link.receiver.add_candidates(read_fragment("\r\n".join(kept)).candidates)
        remote = link.receiver.connection.getTransceivers()[0].receiver.transport.transport
        addresses = {(c.ip, c.port) for c in remote.getRemoteCandidates()}
    assert {(line.split()[4], int(line.split()[5])) for line in kept} <= addresses


# ---- receiving ----


async def test_packets_come_to_the_sink_and_none_to_the_stock_decoder() -> None:
    async with linked() as link:
        await send(link, 3, payloads=2)
        assert [p.marker for p in link.received] == [0, 1] * 3
        assert link.received[0]._data == b"\0\0\0\1" + SLICE
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
        assert [p._data for p in link.received] == [b"\0\0\0\1" + SLICE]
    assert numbers == [77]


async def test_a_pli_reaches_the_other_side() -> None:
    async with linked() as link:
        await send(link, 1)
        await link.receiver_tap.send_pli(link.received[0].ssrc)
        await until(lambda: link.keyframes_asked == 1, "the request")


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


# ---- sending ----


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


# ---- the network ----


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


async def test_a_cancelled_gathering_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    stock = loop.create_datagram_endpoint
    bound: list[asyncio.DatagramTransport] = []

    async def bind_and_be_cancelled(*args: Any, **kwargs: Any) -> Any:
        made = await stock(*args, **kwargs)
        bound.append(made[0])
        offering.cancel()
        await asyncio.sleep(0)
        return made

    monkeypatch.setattr(loop, "create_datagram_endpoint", bind_and_be_cancelled)
    peer = Peer(IceConfig())
    peer.add("video", "sendonly")
    offering = asyncio.create_task(peer.offer())
    with pytest.raises(asyncio.CancelledError):
        await offering
    await peer.close()
    assert bound
    assert all(transport.is_closing() for transport in bound)


async def test_a_cancelled_close_leaves_no_socket() -> None:
    peer = Peer(IceConfig())
    peer.add("video", "sendonly")
    await peer.offer()
    ice: Any = peer.connection.getTransceivers()[0].receiver.transport.transport._connection
    bound = [protocol.transport for protocol in ice._protocols]
    closing = asyncio.create_task(peer.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert bound
    assert all(transport.is_closing() for transport in bound)


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


async def test_a_sender_tap_needs_no_reports() -> None:
    peer = Peer(IceConfig())
    track = PayloadTrack("audio", asyncio.Queue[Sent]().get)
    SenderTap(peer.add("audio", "sendonly", track).sender, lambda: None)
    await peer.close()


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
