"""Receiving coded media from one aiortc receiver; what it sends back to the sender."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from aiortc.rtp import RtpPacket

from streamlift.frames import Codec
from streamlift.media.rtc.codecs import OPUS, codec_of_mime
from streamlift.media.rtc.packet import MediaPacket, PacketSink

__all__ = ["ReceiverTap"]

logger = logging.getLogger(__name__)


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
        # aiortc asks for a lost packet only once; incoming/nack.py repeats it until it is given up.
        self._receiver._RTCRtpReceiver__nack_generator = None
        # Its REMB messages tell Chromium a bandwidth far below the real one, and Chromium obeys
        # them beside transport-cc: it then sends a quarter of the picture (measured).
        self._receiver._RTCRtpReceiver__remote_bitrate_estimator = None

    def codec_of(self, payload_type: int) -> Codec | None:
        codec = self._receiver._RTCRtpReceiver__codecs.get(payload_type)
        return None if codec is None else codec_of_mime(codec.mimeType)

    def is_opus(self, payload_type: int) -> bool:
        codec = self._receiver._RTCRtpReceiver__codecs.get(payload_type)
        return codec is not None and codec.mimeType.lower() == OPUS

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


class _JitterBufferTap:
    """Stands in for aiortc's JitterBuffer; never completes a frame."""

    def __init__(self, sink: PacketSink) -> None:
        self._sink = sink

    def add(self, packet: Any) -> tuple[bool, None]:
        self._sink(
            MediaPacket(
                packet.sequence_number,
                packet.timestamp,
                packet.marker,
                packet.payload_type,
                packet.ssrc,
                packet._data,
            )
        )
        return False, None
