"""One WebRTC connection; the only file that touches aiortc's private parts.

Every such place links to the code it leans on (aiortc 1.16) and has a test in
`tests/media/rtc/test_connection.py` that fails when that code changes. Attributes of instances are
replaced, never classes or module constants.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import socket
import struct
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from aioice import Candidate
from aioice import ice as aioice_ice
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol, server_reflexive_candidate
from aioice.stun import TransactionError
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.clock import current_ntp_time
from aiortc.codecs import is_rtx
from aiortc.exceptions import InvalidStateError, OperationError
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcconfiguration import RTCBundlePolicy
from aiortc.rtcrtpparameters import (
    RTCRtcpFeedback,
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
)
from aiortc.rtcrtpsender import random_sequence_number
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpSrPacket,
    RtpPacket,
    unpack_remb_fci,
)
from aiortc.sdp import SessionDescription, candidate_from_sdp
from aiortc.utils import random32

from streamlift.config import IceConfig
from streamlift.errors import MalformedSdp, Overloaded, UnsupportedOffer
from streamlift.frames import Codec
from streamlift.media.incoming.assembler import VideoPacket
from streamlift.media.rtc.sdp import Offer, announced, finish_answer
from streamlift.media.rtc.transport_cc import EXTENSION_URI
from streamlift.tasks import to_its_end

__all__ = [
    "PacketSink",
    "PayloadTrack",
    "Peer",
    "ReceiverReport",
    "ReceiverTap",
    "SenderTap",
    "SentFrame",
    "negotiated_codec",
    "query_consent",
]

logger = logging.getLogger(__name__)

_MIME = {Codec.H264: "video/H264", Codec.VP8: "video/VP8"}
_RTX = "video/rtx"
_OPUS = "audio/opus"
GATHER_S = 1.0
_HISTORY_S = 1.5
"""A viewer asks again for a second or so; the stock sender remembers 128 packets, 0.2 s."""
_HISTORY_PACKETS = 4096
_FREE_RESENDS = 256
_BURST = 32
_BURST_PAUSE_S = 0.003
"""32 packets each 3 ms are some 100 Mbit/s: a keyframe of 100 packets takes 10 ms."""
_CLOCK_HZ = {"video": 90_000, "audio": 48_000}
RECEIVE_BUFFER = 2 * 1024 * 1024
_UNREADABLE = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""aiortc checks little of an SDP: whatever Python raises for a value it did not expect."""


class PacketSink(Protocol):
    """Takes every media packet of one receiver, in the order of arrival."""

    def __call__(self, packet: VideoPacket, /) -> None: ...


class SentFrame(Protocol):
    """What a payload track gives the sender: ready RTP payloads and their 90 kHz time."""

    @property
    def payloads(self) -> Sequence[bytes]: ...

    @property
    def pts(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    """What a viewer tells of its reception; what a packet did not tell is None.

    `fraction_lost` 0 to 1 since its last report, `round_trip_s` smoothed, `estimate_bps` its own
    estimate of what its link can carry (REMB).
    """

    fraction_lost: float | None = None
    round_trip_s: float | None = None
    estimate_bps: int | None = None


class PayloadTrack(MediaStreamTrack):
    """A track whose frames are packetized already; `source` raises MediaStreamError at the end."""

    def __init__(self, kind: str, source: Callable[[], Awaitable[SentFrame]]) -> None:
        super().__init__()
        self.kind = kind
        self._source = source

    async def recv(self) -> Any:
        return await self._source()


class Peer:
    """An RTCPeerConnection that answers one offer, or makes one."""

    def __init__(self, ice: IceConfig) -> None:
        servers = [RTCIceServer(s.urls, s.username, s.credential) for s in ice.servers]
        self._announce = ice.announce
        self._ports = ice.ports
        self._stream_id = str(uuid.uuid4())
        self.connection = RTCPeerConnection(
            # An explicit list, even an empty one: aiortc's default is a public STUN server.
            RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        )
        self._gathering: asyncio.Future[None] | None = None
        self.changed = asyncio.Event()
        """Set at every change of `state`."""
        self.connection.on("connectionstatechange", self.changed.set)

    @property
    def state(self) -> str:
        """new, connecting, connected, failed or closed."""
        return str(self.connection.connectionState)

    def add(
        self, kind: str, direction: str, track: MediaStreamTrack | None = None
    ) -> RTCRtpTransceiver:
        """Add a transceiver. Must happen before `answer`: preferences set later do nothing."""
        transceiver = self.connection.addTransceiver(track or kind, direction=direction)
        if direction == "recvonly":
            _take_media_as_consent(transceiver.receiver.transport)
        # All tracks of one MediaStream (RFC 9725 4.4.2); stock senders have a stream each:
        # https://github.com/aiortc/aiortc/blob/1.16.0/src/aiortc/rtcrtpsender.py (_stream_id)
        transceiver.sender._stream_id = self._stream_id
        return transceiver

    def prefer(self, transceiver: RTCRtpTransceiver, codecs: Sequence[Codec]) -> None:
        """Allow only these video codecs, in this order, each with its retransmission format."""
        known = RTCRtpSender.getCapabilities("video").codecs
        ordered = [c for codec in codecs for c in known if c.mimeType == _MIME[codec]]
        transceiver.setCodecPreferences([*ordered, *(c for c in known if c.mimeType == _RTX)])

    def prefer_opus(self, transceiver: RTCRtpTransceiver) -> None:
        """Allow only Opus, which is relayed as it is."""
        known = RTCRtpSender.getCapabilities("audio").codecs
        transceiver.setCodecPreferences([c for c in known if c.mimeType == _OPUS])

    async def answer(self, offer: Offer) -> str:
        """Take the offer, gather all candidates, and return the finished answer.

        Raises MalformedSdp or UnsupportedOffer when the offer cannot be served, Overloaded when
        all configured UDP ports are taken.
        """
        self._prepare_gathering()
        try:
            return await self._answer(offer.sdp)
        except OperationError as error:
            raise UnsupportedOffer(
                f"no codec in common: {error}", expected=["H264", "VP8", "opus"]
            ) from error
        except (*_UNREADABLE, InvalidStateError) as error:
            raise MalformedSdp(f"the offer cannot be read: {error!r}") from error

    async def _answer(self, offer_sdp: str) -> str:
        offered = _parsed(offer_sdp)
        await self.connection.setRemoteDescription(RTCSessionDescription(offer_sdp, "offer"))
        self._take_passive_role(offer_sdp)
        self._negotiate_transport_cc(offered)
        await self._settle(await self.connection.createAnswer())
        self._must_have_ports()
        self._enlarge_receive_buffers()
        return finish_answer(self.connection.localDescription.sdp, self._announce)

    async def offer(self) -> str:
        """Gather all candidates and return an offer for the transceivers added."""
        self._prepare_gathering()
        await self._settle(await self.connection.createOffer())
        self._enlarge_receive_buffers()
        return announced(self.connection.localDescription.sdp, self._announce)

    async def accept(self, answer_sdp: str) -> None:
        """Take the answer to `offer`. Raises MalformedSdp when it cannot be read."""
        try:
            _parsed(answer_sdp)
            await self.connection.setRemoteDescription(RTCSessionDescription(answer_sdp, "answer"))
        except (*_UNREADABLE, OperationError, InvalidStateError) as error:
            raise MalformedSdp(f"the answer cannot be read: {error!r}") from error

    async def add_candidates(self, candidates: Sequence[str]) -> None:
        """Take the peer's later candidates, lines as `media.sdp.read_fragment` gives them."""
        mid = self.connection.getTransceivers()[0].mid
        for text in candidates:
            candidate = candidate_from_sdp(text.removeprefix("candidate:"))
            candidate.sdpMid = mid  # all media is bundled with the first section
            await self.connection.addIceCandidate(candidate)

    async def wait_connected(self) -> bool:
        """Wait until media can flow (True) or never will (False)."""
        while self.state not in ("connected", "failed", "closed"):
            self.changed.clear()
            await self.changed.wait()
        return self.state == "connected"

    async def wait_gone(self) -> None:
        """Wait until the connection has failed or was closed by either side."""
        while self.state not in ("failed", "closed"):
            self.changed.clear()
            await self.changed.wait()

    async def close(self) -> None:
        """Free sockets and tasks, also of a gathering whose caller was cancelled; goes to its end
        when cancelled itself, or half of them would stay."""
        await to_its_end(self._close())

    async def _close(self) -> None:
        if self._gathering is not None:
            await asyncio.wait([self._gathering])
            if not self._gathering.cancelled():
                self._gathering.exception()  # told to whoever waited; nobody may have
        await self.connection.close()

    async def _settle(self, description: RTCSessionDescription) -> None:
        """Set our description, which gathers. In a task of its own: gathering that is cancelled
        half-way leaves sockets bound that no connection knows of, so none would close them.

        https://github.com/aiortc/aioice/blob/0.13.0/src/aioice/ice.py (get_component_candidates)
        """
        self._gathering = asyncio.ensure_future(self.connection.setLocalDescription(description))
        await asyncio.shield(self._gathering)

    def _enlarge_receive_buffers(self) -> None:
        """Room for a whole keyframe burst: the usual 208 KiB overflow at about 90 packets.

        A 1024x1024 keyframe is that large, and arrives at once; on a busy machine the loss was
        thousands of packets (counted by the kernel as UdpRcvbufErrors). The kernel caps the size.
        https://github.com/aiortc/aioice/blob/0.13.0/src/aioice/ice.py (Connection._protocols)
        """
        for transceiver in self.connection.getTransceivers():
            ice: Any = transceiver.receiver.transport.transport._connection
            for protocol in ice._protocols:
                bound = protocol.transport.get_extra_info("socket")
                if bound is not None:  # a TURN allocation has none of its own
                    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

    def _take_passive_role(self, offer_sdp: str) -> None:
        """Be the DTLS server whenever the peer leaves it open: RSA certificates work then.

        createAnswer keeps a role that is set and answers `active` otherwise:
        https://github.com/aiortc/aiortc/blob/1.16.0/src/aiortc/rtcpeerconnection.py (createAnswer)
        """
        if "a=setup:actpass" in offer_sdp:
            for transceiver in self.connection.getTransceivers():
                transceiver.receiver.transport._set_role("server")

    def _negotiate_transport_cc(self, offered: SessionDescription) -> None:
        """Answer with transport-cc and without REMB where the peer offers the extension.

        createAnswer reads the transceiver's `_headerExtensions` and `_codecs`:
        https://github.com/aiortc/aiortc/blob/1.16.0/src/aiortc/rtcpeerconnection.py
        """
        for transceiver in self.connection.getTransceivers():
            media = next((m for m in offered.media if m.rtp.muxId == transceiver.mid), None)
            # Viewers tell their bandwidth by REMB: what we send carries no transport sequence.
            receiving = transceiver.direction in ("recvonly", "sendrecv")
            if media is None or transceiver.kind != "video" or not receiving:
                continue
            ids = [e.id for e in media.rtp.headerExtensions if e.uri == EXTENSION_URI]
            if not ids:
                continue
            transceiver._headerExtensions.append(
                RTCRtpHeaderExtensionParameters(id=ids[0], uri=EXTENSION_URI)
            )
            for codec in transceiver._codecs:
                if not is_rtx(codec):
                    kept = [f for f in codec.rtcpFeedback if f.type != "goog-remb"]
                    codec.rtcpFeedback = [*kept, RTCRtcpFeedback(type="transport-cc")]

    def _prepare_gathering(self) -> None:
        """A STUN or TURN server that does not answer must not hold up the answer for 5 s.

        https://github.com/aiortc/aioice/blob/0.10.1/src/aioice/ice.py (get_component_candidates)
        """
        ice: Any = self.connection.getTransceivers()[0].receiver.transport.transport._connection
        ice.get_component_candidates = partial(ice.get_component_candidates, timeout=GATHER_S)
        if self._ports:
            _PortRange(ice, range(self._ports[0], self._ports[1] + 1))

    def _must_have_ports(self) -> None:
        if self._ports and "a=candidate:" not in self.connection.localDescription.sdp:
            low, high = self._ports
            raise Overloaded(
                "all UDP ports for media are taken; retry later",
                found="no free port",
                expected=f"a free one in {low}-{high} (ice.ports)",
            )


def _parsed(sdp: str) -> SessionDescription:
    """Raises one of `_UNREADABLE`."""
    try:
        return SessionDescription.parse(sdp)
    except StopIteration as error:  # in a coroutine it would surface as a RuntimeError
        raise ValueError("a payload type without rtpmap") from error


class ReceiverTap:
    """Coded access to one receiver: its packets come here instead of to aiortc's decoder.

    The receiver's jitter buffer is replaced, so that no picture is ever assembled there; its
    decoder thread stays idle on an empty queue.
    https://github.com/aiortc/aiortc/blob/1.16.0/src/aiortc/rtcrtpreceiver.py (_handle_rtp_packet)
    """

    def __init__(self, receiver: Any, sink: PacketSink) -> None:
        self._receiver = receiver
        self.transport_sequence: Callable[[int], None] | None = None
        """Called with the transport-wide sequence number of every packet, retransmissions too."""
        self._receiver._RTCRtpReceiver__jitter_buffer = _JitterBufferTap(sink)
        self._stock_handler = receiver._handle_rtp_packet
        receiver._handle_rtp_packet = self._handle_rtp_packet
        # It asks once and for what was given up, too; media/nack.py does it better.
        self._receiver._RTCRtpReceiver__nack_generator = None
        # REMB would compete with transport-cc, and its estimate is what starves Chromium.
        self._receiver._RTCRtpReceiver__remote_bitrate_estimator = None

    def codec_of(self, payload_type: int) -> Codec | None:
        codec = self._receiver._RTCRtpReceiver__codecs.get(payload_type)
        return None if codec is None else _codec(codec.mimeType)

    def is_opus(self, payload_type: int) -> bool:
        codec = self._receiver._RTCRtpReceiver__codecs.get(payload_type)
        return codec is not None and codec.mimeType.lower() == _OPUS

    @property
    def rtcp_ssrc(self) -> int:
        return int(self._receiver._RTCRtpReceiver__rtcp_ssrc or 0)

    async def send_pli(self, media_ssrc: int) -> None:
        await self._receiver._send_rtcp_pli(media_ssrc)

    async def send_nack(self, media_ssrc: int, sequences: list[int]) -> None:
        await self._receiver._send_rtcp_nack(media_ssrc, sequences)

    async def send_rtcp(self, packet: bytes) -> None:
        """Send a whole RTCP packet; silently nothing when the connection is gone."""
        try:
            await self._receiver.transport._send_rtp(packet)
        except ConnectionError:
            logger.debug("feedback not sent: the connection is closed")

    async def packets_lost(self) -> int:
        return sum(
            getattr(s, "packetsLost", 0)
            for s in (await self._receiver.getStats()).values()
            if s.type == "inbound-rtp"
        )

    async def _handle_rtp_packet(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        sequence = packet.extensions.transport_sequence_number
        if sequence is not None and self.transport_sequence is not None:
            self.transport_sequence(sequence)
        await self._stock_handler(packet, arrival_time_ms)


class SenderTap:
    """Packet mode of one sender: payloads go out as they are, keyframe requests come to us.

    Of the sender, RTCP, reports and retransmission stay as they are. Replaced are its RTP loop, by
    a lean one for ready payloads; its `_send_keyframe`, which would only set a flag for an encoder
    that is not there; and its history of packets to repeat, by a longer one. Reports of the viewer
    are shown to `on_report`; `on_resend` is called with every packet repeated.
    https://github.com/aiortc/aiortc/blob/1.16.0/src/aiortc/rtcrtpsender.py (_run_rtp, _retransmit,
    _handle_rtcp_packet)
    """

    def __init__(
        self,
        sender: Any,
        on_keyframe_request: Callable[[], None],
        *,
        on_report: Callable[[ReceiverReport], None] | None = None,
        on_resend: Callable[[], None] | None = None,
    ) -> None:
        self._sender = sender
        self._on_report = on_report
        self._on_resend = on_resend
        self._history = _History(round(_HISTORY_S * _CLOCK_HZ[sender.kind]))
        self._sender._RTCRtpSender__rtp_history = self._history
        self._rtp = _LeanRtp(sender, self._history)
        sender._run_rtp = self._rtp.run
        sender._send_keyframe = on_keyframe_request
        self._stock_retransmit = sender._retransmit
        sender._retransmit = self._retransmit
        self._stock_handler = sender._handle_rtcp_packet
        sender._handle_rtcp_packet = self._handle_rtcp_packet
        self.resent = 0
        """Packets the viewer asked for again and got."""

    @property
    def rtp_origin(self) -> int | None:
        """The RTP timestamp of pts 0, random per sender (RFC 3550 5.1); None before media flows."""
        return self._rtp.origin

    @property
    def packets_sent(self) -> int:
        return int(self._sender._RTCRtpSender__packet_count)

    @property
    def octets_sent(self) -> int:
        return int(self._sender._RTCRtpSender__octet_count)

    async def packets_lost(self) -> int:
        """Packets the viewer reported lost in its last receiver report."""
        stats = (await self._sender.getStats()).values()
        lost = [s.packetsLost for s in stats if s.type == "remote-inbound-rtp"]
        return max(0, lost[-1]) if lost else 0

    async def _retransmit(self, sequence: int) -> None:
        if sequence not in self._history or self.resent > _FREE_RESENDS + self.packets_sent // 2:
            return  # a viewer that asks for everything twice only makes its link worse
        self.resent += 1
        if self._on_resend is not None:
            self._on_resend()
        self._history.wanted = sequence
        # It looks the packet up before it first waits, so nobody else can change `wanted`.
        await self._stock_retransmit(sequence)

    async def _handle_rtcp_packet(self, packet: Any) -> None:
        await self._stock_handler(packet)
        if self._on_report is None:
            return
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == self._sender._ssrc:
                    round_trip_s = self._sender._RTCRtpSender__rtt
                    self._on_report(ReceiverReport(report.fraction_lost / 256, round_trip_s))
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            try:
                estimate_bps, ssrcs = unpack_remb_fci(packet.fci)
            except ValueError:
                return  # another application's message
            if self._sender._ssrc in ssrcs:
                self._on_report(ReceiverReport(estimate_bps=estimate_bps))


def _take_media_as_consent(dtls: Any) -> None:
    """Let what a sender sends count as its consent, beside its answers to our consent checks.

    FFmpeg's WHIP muxer (8.1) sends checks of its own but never answers ours once media flows, and
    would be ended after 30 s. To a peer that only sends we send nothing but feedback.
    https://github.com/aiortc/aioice/blob/0.13.0/src/aioice/ice.py (query_consent)
    """
    ice = dtls.transport._connection
    ice.query_consent = lambda: query_consent(ice, lambda: dtls._RTCDtlsTransport__rx_packets)


async def query_consent(ice: Any, packets: Callable[[], int]) -> None:
    """Check consent (RFC 7675) until it is lost, then close `ice`; new `packets` are consent."""
    failures, seen = 0, packets()
    while failures < aioice_ice.CONSENT_FAILURES:
        await asyncio.sleep(aioice_ice.CONSENT_INTERVAL * (0.8 + 0.4 * random.random()))
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


def negotiated_codec(transceiver: RTCRtpTransceiver) -> Codec | None:
    """The video codec media will use: the first of the negotiated list."""
    codecs = transceiver._codecs
    return _codec(codecs[0].mimeType) if codecs else None


def _codec(mime: str) -> Codec | None:
    return next((codec for codec, name in _MIME.items() if name.lower() == mime.lower()), None)


class _JitterBufferTap:
    """Stands in for aiortc's JitterBuffer; never completes a frame."""

    def __init__(self, sink: PacketSink) -> None:
        self._sink = sink

    def add(self, packet: Any) -> tuple[bool, None]:
        self._sink(packet)
        return False, None


@dataclass(frozen=True, slots=True)
class _SentFrame:
    """What is needed to send any packet of a frame once more."""

    payload_type: int
    ssrc: int
    timestamp: int
    mid: str
    first: int
    """Sequence number of its first packet."""
    payloads: Sequence[bytes]

    def packet(self, sequence: int) -> RtpPacket:
        index = (sequence - self.first) & 0xFFFF
        packet = RtpPacket(
            payload_type=self.payload_type,
            marker=int(index == len(self.payloads) - 1),
            sequence_number=sequence,
            timestamp=self.timestamp,
            ssrc=self.ssrc,
            payload=self.payloads[index],
        )
        packet.extensions.mid = self.mid
        return packet


class _History(dict[int, _SentFrame]):
    """Stands in for the sender's history: frames by sequence number, for `span` RTP ticks.

    The sender asks by number modulo 128; the number meant is in `wanted`.
    """

    def __init__(self, span: int) -> None:
        super().__init__()
        self._span = span
        self.wanted = -1

    def remember(self, frame: _SentFrame) -> None:
        for index in range(len(frame.payloads)):
            self[(frame.first + index) & 0xFFFF] = frame
        while True:
            oldest = next(iter(self))
            age = (frame.timestamp - self[oldest].timestamp) & 0xFFFFFFFF
            if age <= self._span and len(self) <= _HISTORY_PACKETS:
                return
            del self[oldest]

    def get(self, slot: int, default: Any = None) -> Any:
        frame = super().get(self.wanted)
        return default if frame is None else frame.packet(self.wanted)


class _LeanRtp:
    """Stands in for the sender's RTP loop: one header a frame, patched for each packet.

    The stock loop builds and serializes an object a packet, which is nearly half of what a viewer
    costs. Long frames are spread a little: a keyframe of 100 packets sent at once overflows
    receive buffers, ours and others'.
    """

    def __init__(self, sender: Any, history: _History) -> None:
        self._sender = sender
        self._history = history
        self.origin: int | None = None

    async def run(self, codec: RTCRtpCodecParameters) -> None:
        """The whole life of the sender's RTP; it is cancelled by `RTCRtpSender.stop`."""
        assert codec.payloadType is not None
        sender = self._sender
        sender._RTCRtpSender__rtp_started.set()
        sequence, self.origin = random_sequence_number(), random32()
        track = sender.track
        try:
            while True:
                frame = await track.recv()
                if frame.payloads:  # an empty access unit makes no packet
                    sequence = await self._send(frame, codec.payloadType, sequence)
        except (ConnectionError, MediaStreamError):
            logger.debug("sending ended")
        except Exception:
            # Broad because the task ends here and nobody awaits it: aiortc waits for the event.
            logger.exception("sending failed")
        finally:
            track.stop()
            sender.replaceTrack(None)
            sender._RTCRtpSender__rtp_exited.set()

    async def _send(self, frame: SentFrame, payload_type: int, sequence: int) -> int:
        """Send one frame; returns the next sequence number. Raises ConnectionError."""
        sender, payloads = self._sender, frame.payloads
        assert self.origin is not None
        timestamp = (self.origin + frame.pts) & 0xFFFFFFFF
        mid = sender._RTCRtpSender__mid
        sent = _SentFrame(payload_type, sender._ssrc, timestamp, mid, sequence, payloads)
        self._history.remember(sent)
        header = bytearray(self._header(sent))
        last = len(payloads) - 1
        for start in range(0, len(payloads), _BURST):
            if start:
                await asyncio.sleep(_BURST_PAUSE_S)
            send = self._way_out()
            for index in range(start, min(start + _BURST, len(payloads))):
                marker = 0x80 if index == last else 0
                struct.pack_into("!BH", header, 1, marker | payload_type, sequence)
                send(bytes(header) + payloads[index])
                sequence = (sequence + 1) & 0xFFFF
        sender._RTCRtpSender__ntp_timestamp = current_ntp_time()
        sender._RTCRtpSender__rtp_timestamp = timestamp
        sender._RTCRtpSender__octet_count += sum(map(len, payloads))
        sender._RTCRtpSender__packet_count += len(payloads)
        return sequence

    def _way_out(self) -> Callable[[bytes], None]:
        """Protects a packet and sends it to where the peer is now. Raises ConnectionError.

        The same as the transport's `_send_rtp`, without a chain of five coroutines a packet:
        https://github.com/aiortc/aiortc/blob/1.16.0/src/aiortc/rtcdtlstransport.py (_send_rtp)
        https://github.com/aiortc/aioice/blob/0.10.1/src/aioice/ice.py (Connection.sendto)
        """
        dtls = self._sender.transport
        pair = dtls.transport._connection._nominated.get(1)
        if dtls.state != "connected" or pair is None:
            raise ConnectionError("not connected")
        protect, sendto = dtls._tx_srtp.protect, pair.protocol.transport.sendto
        address = pair.remote_addr
        return lambda packet: sendto(protect(packet), address)

    def _header(self, sent: _SentFrame) -> bytes:
        template = RtpPacket(
            payload_type=sent.payload_type, timestamp=sent.timestamp, ssrc=sent.ssrc
        )
        template.extensions.abs_send_time = (current_ntp_time() >> 14) & 0x00FFFFFF
        template.extensions.mid = sent.mid
        return template.serialize(self._sender._RTCRtpSender__rtp_header_extensions_map)


class _PortRange:
    """Makes one ICE connection take its host candidates from a range of UDP ports.

    aioice binds to port 0 and has no setting for it, so the step that binds is replaced on the
    connection; the rest, TURN, is left to it.
    https://github.com/aiortc/aioice/blob/0.10.1/src/aioice/ice.py (get_component_candidates)
    """

    def __init__(self, connection: Any, ports: range) -> None:
        self._connection = connection
        self._ports = ports
        self._stock = connection.get_component_candidates
        connection.get_component_candidates = self._gather

    async def _gather(
        self, component: int, addresses: list[str], timeout: float = GATHER_S
    ) -> list[Candidate]:
        bound = [p for a in addresses if (p := await self._bind(component, a)) is not None]
        self._connection._protocols += bound
        candidates = [protocol.local_candidate for protocol in bound]
        if (stun := self._connection.stun_server) is not None:
            mapped = (server_reflexive_candidate(p, stun) for p in bound if _is_ipv4(p))
            found = await asyncio.gather(*mapped, return_exceptions=True)
            candidates += [f[0] for f in found if isinstance(f, tuple)]  # others timed out
        relayed: list[Candidate] = await self._stock(component, [], timeout=timeout)
        return candidates + relayed

    async def _bind(self, component: int, address: str) -> StunProtocol | None:
        loop = asyncio.get_running_loop()
        # From a random place: a port just closed may still get packets of its last peer.
        start = secrets.randbelow(len(self._ports))
        for port in (*self._ports[start:], *self._ports[:start]):
            try:
                _, protocol = await loop.create_datagram_endpoint(
                    lambda: StunProtocol(self._connection), local_addr=(address, port)
                )
            except OSError:
                continue  # taken
            protocol.local_candidate = Candidate(
                foundation=candidate_foundation("host", "udp", address),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host"),
                host=address,
                port=port,
                type="host",
            )
            return protocol
        logger.warning("no free UDP port at %s in %s", address, self._ports)
        return None


def _is_ipv4(protocol: StunProtocol) -> bool:
    return ":" not in protocol.local_candidate.host
