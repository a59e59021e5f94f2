"""The private parts of aiortc we lean on: each of these fails when they change."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aioice.ice
import pytest
from aiortc import RTCPeerConnection
from tests.media.loopback import SLICE, Sent, linked, offer_of, send
from tests.serving import until

from streamlift.config import IceConfig
from streamlift.errors import Overloaded, UnsupportedOffer
from streamlift.frames import Codec
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.formats import with_known_h264
from streamlift.media.rtc.packet import MediaPacket
from streamlift.media.rtc.receiver import ReceiverTap
from streamlift.media.rtc.sdp import (
    Role,
    read_fragment,
    read_offer,
    sections_without_candidates,
    with_bundle_led_by,
)
from streamlift.media.rtc.sender import PayloadTrack, SenderTap
from streamlift.media.rtc.transport_cc import EXTENSION_URI

pytestmark = pytest.mark.peer


def with_transport_cc(sdp: str) -> str:
    """What a browser offers and aiortc does not."""
    payload_types = re.findall(r"a=rtpmap:(\d+) (?:H264|VP8)/", sdp)
    lines = [f"a=rtcp-fb:{pt} transport-cc" for pt in payload_types]
    lines.append(f"a=extmap:9 {EXTENSION_URI}")
    return sdp.replace("a=mid:", "\r\n".join(lines) + "\r\na=mid:", 1)


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
    for name in ("codecs", "remote_streams", "rtx_ssrc"):
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


async def test_an_open_dtls_role_is_answered_passive_and_a_passive_one_active() -> None:
    for offered, answered in (("actpass", "passive"), ("passive", "active")):

        def take_role(sdp: str, role: str = offered) -> str:
            return sdp.replace("setup:actpass", f"setup:{role}")

        async with linked(edit_offer=take_role) as link:
            assert f"a=setup:{answered}" in link.answer


async def test_one_fingerprint_is_told_the_one_that_all_can_check() -> None:
    async with linked() as link:
        for description in (link.offer, link.answer):
            assert re.findall(r"a=fingerprint:(\S+)", description) == ["sha-256"]


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


# ---- the order of the sections, and which of them leads the bundle ----


@pytest.mark.parametrize("order", [("audio", "video"), ("video", "audio")])
@pytest.mark.parametrize("lead", [0, 1])
async def test_any_order_of_sections_and_of_the_bundle_connects(
    order: tuple[str, str], lead: int
) -> None:
    offering, answering = Peer(IceConfig()), Peer(IceConfig())
    try:
        for kind in order:
            offering.add(kind, "sendonly")
        for kind in ("video", "audio"):
            answering.add(kind, "recvonly")
        offer = with_bundle_led_by(await offering.offer(), str(lead))
        answer = await answering.answer(read_offer(offer, Role.PUBLISH))
        assert re.findall(r"m=(\w+)", answer) == list(order)
        assert not sections_without_candidates(answer)
        await offering.accept(with_bundle_led_by(answer, str(1 - lead)))
        await offering.connected()
        await answering.connected()
    finally:
        await offering.close()
        await answering.close()


async def test_candidates_that_come_later_find_the_transport_in_any_order() -> None:
    offering, answering = Peer(IceConfig()), Peer(IceConfig())
    try:
        for kind in ("audio", "video"):
            offering.add(kind, "sendonly")
        for kind in ("video", "audio"):
            answering.add(kind, "recvonly")
        lines = (await offering.offer()).split("\r\n")
        later = "\r\n".join(dict.fromkeys(x for x in lines if x.startswith("a=candidate:")))
        offer = "\r\n".join(line for line in lines if not line.startswith("a=candidate:"))
        await answering.answer(read_offer(offer, Role.PUBLISH))
        await answering.add_candidates(read_fragment(later).candidates)
        transport = answering.connection.getTransceivers()[0].receiver.transport.transport
        assert len(transport.getRemoteCandidates()) == later.count("a=candidate:")
    finally:
        await offering.close()
        await answering.close()


async def test_a_machine_that_is_offline_is_reached_from_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda **_: [])
    async with linked() as link:
        assert set(re.findall(r"a=candidate:.* (\S+) \d+ typ host", link.answer)) == {"127.0.0.1"}
        await send(link, 2)


async def test_no_answer_leaves_without_a_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    text = await offer_of("video", "audio")

    async def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_datagram_endpoint", refuse)
    peer = Peer(IceConfig())
    peer.add("video", "recvonly")
    peer.add("audio", "recvonly")
    with pytest.raises(Overloaded, match="no UDP socket") as refused:
        await peer.answer(read_offer(text, Role.PUBLISH))
    await peer.close()
    assert refused.value.found == "no candidate for video, audio"


# ---- formats ----

NO_FMTP = re.compile(r"a=fmtp:\d+ [^\r]*profile[^\r]*\r\n")


def h264_only(offer: str, fmtp: str, *, payload_type: int = 0) -> str:
    """The offer with one H.264 format of these parameters, and nothing else."""
    known = re.findall(r"a=rtpmap:(\d+) H264/", offer)[0]
    kept = [
        line
        for line in offer.split("\r\n")
        if not (m := re.match(r"a=(?:rtpmap|fmtp|rtcp-fb):(\d+) ", line)) or m[1] == known
    ]
    kept = [re.sub(r"(m=video \d+ \S+) .*", rf"\1 {known}", line) for line in kept]
    text = NO_FMTP.sub("", "\r\n".join(kept))
    if fmtp:
        text = text.replace("a=rtpmap:", f"a=fmtp:{known} {fmtp}\r\na=rtpmap:", 1)
    if payload_type:
        text = re.sub(rf"(m=video \d+ \S+|:){known}\b", rf"\g<1>{payload_type}", text)
        text = re.sub(rf"(m=video \d+ \S+) {known}", rf"\g<1> {payload_type}", text)
    return text


@pytest.mark.parametrize(
    ("fmtp", "answered"),
    [
        ("packetization-mode=1;profile-level-id=64001f", "64001f"),
        ("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640c1f", "640c1f"),
        ("packetization-mode=1;profile-level-id=4d001f", "4d001f"),
        ("packetization-mode=1;profile-level-id=f4001f", "f4001f"),
        ("packetization-mode=0;profile-level-id=42e01f", "42e01f"),
        ("profile-level-id=42e01f;sprop-parameter-sets=Z0LAH9kA,aMuMsg==", "42e01f"),
        ("", None),
    ],
)
async def test_a_publisher_may_send_any_h264(fmtp: str, answered: str | None) -> None:
    received: list[MediaPacket] = []
    sender, receiver = Peer(IceConfig()), Peer(IceConfig())
    queue: asyncio.Queue[Sent] = asyncio.Queue()
    try:
        sending = sender.add("video", "sendonly", PayloadTrack("video", queue.get))
        sender.prefer(sending, [Codec.H264])
        SenderTap(sending.sender, lambda: None)
        receiving = receiver.add("video", "recvonly")
        receiver.prefer(receiving, list(Codec))
        tap = ReceiverTap(receiving.receiver, received.append)
        offer = h264_only(await sender.offer(), fmtp)
        answer = await receiver.answer(read_offer(offer, Role.PUBLISH))
        profiles = re.findall(r"profile-level-id=(\w+)", answer)
        assert profiles == ([answered] if answered else [])
        assert "sprop" not in answer
        await sender.accept(with_known_h264(answer))
        await sender.connected()
        await receiver.connected()
        queue.put_nowait(Sent(0, [SLICE]))
        await until(lambda: bool(received), "a packet")
        assert tap.codec_of(received[0].payload_type) is Codec.H264
    finally:
        await sender.close()
        await receiver.close()


async def test_payload_types_below_96_are_answered_as_they_are() -> None:
    peer = Peer(IceConfig())
    peer.prefer(peer.add("video", "recvonly"), list(Codec))
    fmtp = "packetization-mode=1;profile-level-id=42e01f"
    offer = h264_only(await offer_of("video"), fmtp, payload_type=39)
    answer = await peer.answer(read_offer(offer, Role.PUBLISH))
    receiver: Any = peer.connection.getTransceivers()[0]
    await peer.close()
    assert re.findall(r"m=video \d+ \S+ (.*)\r", answer) == ["39"]
    assert "a=rtpmap:39 H264/90000" in answer
    assert [c.payloadType for c in receiver._codecs] == [39]


async def test_a_viewer_is_answered_with_a_format_that_can_be_sent() -> None:
    peer = Peer(IceConfig())
    track = PayloadTrack("video", asyncio.Queue[Sent]().get)
    peer.prefer(peer.add("video", "sendonly", track), [Codec.H264])
    offer = h264_only(
        await offer_of("video", direction="recvonly"),
        "packetization-mode=1;profile-level-id=640c1f",
    )
    answer = await peer.answer(read_offer(offer, Role.VIEW))
    await peer.close()
    assert "profile-level-id=640c1f" in answer


async def test_a_refusal_names_what_was_offered_and_what_would_be_taken() -> None:
    text = await offer_of("video", direction="recvonly")
    offer = h264_only(text, "packetization-mode=0;profile-level-id=42e01f")
    with pytest.raises(UnsupportedOffer, match="no video format") as refused:
        read_offer(offer, Role.VIEW)
    assert "packetization-mode=0" in str(refused.value.found)
    assert "packetization-mode=1" in str(refused.value)
    assert refused.value.expected == ["H264", "VP8"]


async def test_candidates_in_the_first_section_only_are_checked() -> None:
    offering, answering = Peer(IceConfig()), Peer(IceConfig())
    try:
        for kind in ("audio", "video"):
            offering.add(kind, "sendonly")
            answering.add(kind, "recvonly")
        first, second = (await offering.offer()).split("m=video")
        bare = "\r\n".join(
            line for line in second.split("\r\n") if not line.startswith("a=candidate:")
        )
        await answering.answer(read_offer(f"{first}m=video{bare}", Role.PUBLISH))
        transport = answering.connection.getTransceivers()[0].receiver.transport.transport
        assert len(transport.getRemoteCandidates()) == first.count("a=candidate:")
    finally:
        await offering.close()
        await answering.close()
