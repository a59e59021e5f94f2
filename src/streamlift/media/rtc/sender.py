"""Sending coded media, packetized already, through one aiortc sender."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiortc import MediaStreamTrack
from aiortc.clock import current_ntp_time
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpsender import random_sequence_number
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpSrPacket,
    RtpPacket,
    unpack_remb_fci,
)
from aiortc.utils import random32

__all__ = ["PayloadTrack", "ReceiverReport", "SenderTap", "SentFrame"]

logger = logging.getLogger(__name__)

_HISTORY_S = 1.5
"""A viewer asks again for a second or so; the stock sender remembers 128 packets, 0.2 s."""
_HISTORY_PACKETS = 4096
_FREE_RESENDS = 256
_BURST = 32
_BURST_PAUSE_S = 0.003
"""32 packets each 3 ms are some 100 Mbit/s: a keyframe of 100 packets takes 10 ms."""
_CLOCK_HZ = {"video": 90_000, "audio": 48_000}


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
            # Repeats have a bound: a viewer that asks for every packet twice would triple the
            # load of the link that loses them.
            return
        self.resent += 1
        if self._on_resend is not None:
            self._on_resend()
        self._history.wanted = sequence
        # The stock method looks the packet up before its first `await`: no other request comes
        # between, so `wanted` is still this sequence number when `_History.get` reads it.
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

    aiortc keeps 128 packets and looks one up by its sequence number modulo 128, which says too
    little here; whoever asks puts the whole number into `wanted` first.
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
