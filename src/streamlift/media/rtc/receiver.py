"""Receiving coded media from one aiortc receiver; what it sends back to the sender."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from aiortc.codecs import is_rtx
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import RtpPacket, unwrap_rtx

from streamlift.frames import Codec
from streamlift.media.rtc.codecs import OPUS, codec_of_mime
from streamlift.media.rtc.depayload import h264_depayload, lenient_vp8
from streamlift.media.rtc.packet import MediaPacket, PacketSink
from streamlift.media.rtc.simulcast import Simulcast

__all__ = ["ReceiverTap"]

logger = logging.getLogger(__name__)

_DEPAYLOAD: dict[Codec | None, Callable[[bytes], bytes]] = {
    Codec.H264: h264_depayload,
    Codec.VP8: lenient_vp8,
}
_MOST_STREAMS = 8
_MOST_REPAIRS = 64


class ReceiverTap:
    """Coded access to one receiver: its packets come here instead of to aiortc's decoder.

    Its handler of packets is replaced: what stays is the loss and jitter that its reports tell and
    the unwrapping of retransmissions. Its jitter buffer stays empty, its decoder thread idle.
    https://github.com/aiortc/aiortc/blob/1.16.0/src/aiortc/rtcrtpreceiver.py (_handle_rtp_packet)
    """

    def __init__(self, receiver: Any, sink: PacketSink) -> None:
        self._receiver = receiver
        self.transport_sequence: Callable[[int], None] | None = None
        """Called with the transport-wide sequence number of every packet, retransmissions too."""
        self._sink = sink
        self._media_ssrc: dict[int, int] = {}
        """The SSRC seen last of each payload type."""
        self._layers = Simulcast()
        self._of_rid: dict[str, int] = {}
        self._repairs: dict[int, int] = {}
        receiver._handle_rtp_packet = self._handle_rtp_packet

    def expect(self, layers: Simulcast) -> None:
        """What the peer's description says of several sizes."""
        self._layers, self._repairs = layers, dict(layers.repairs)

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
        codecs = self._receiver._RTCRtpReceiver__codecs
        codec = codecs.get(packet.payload_type)
        if codec is None:
            return
        self._note_statistics(packet, codec.clockRate)
        if is_rtx(codec):
            base = codec.parameters.get("apt")
            ssrc = self._repaired(packet, base)
            if ssrc is None or base not in codecs or len(packet.payload) < 2:
                return
            packet, codec = unwrap_rtx(packet, payload_type=base, ssrc=ssrc), codecs[base]
        else:
            self._media_ssrc[packet.payload_type] = packet.ssrc
            if (rid := packet.extensions.rtp_stream_id) and len(self._of_rid) < _MOST_STREAMS:
                self._of_rid[rid] = packet.ssrc
        self._sink(
            MediaPacket(
                packet.sequence_number,
                packet.timestamp,
                packet.marker,
                packet.payload_type,
                packet.ssrc,
                _DEPAYLOAD.get(codec_of_mime(codec.mimeType), bytes)(packet.payload),
            )
        )

    def _repaired(self, packet: RtpPacket, base: int | None) -> int | None:
        """The SSRC of which a packet is a retransmission: told in the SDP, or by the header
        extension of RFC 8852, which senders leave out once they have been heard."""
        rid = packet.extensions.repaired_rtp_stream_id
        if rid in self._of_rid and len(self._repairs) < _MOST_REPAIRS:
            self._repairs[packet.ssrc] = self._of_rid[rid]
        told: dict[int, int] = self._receiver._RTCRtpReceiver__rtx_ssrc
        ssrc = self._repairs.get(packet.ssrc, told.get(packet.ssrc))
        if ssrc is None and not self._layers.several:  # there is one stream of each format
            ssrc = self._media_ssrc.get(base or 0)
        return ssrc

    def _note_statistics(self, packet: RtpPacket, clock_rate: int) -> None:
        """For the receiver reports; they hold 31 blocks at most, whatever SSRCs a peer invents."""
        streams = self._receiver._RTCRtpReceiver__remote_streams
        if packet.ssrc not in streams:
            while len(streams) >= _MOST_STREAMS:
                del streams[next(iter(streams))]
            streams[packet.ssrc] = StreamStatistics(clock_rate)
        streams[packet.ssrc].add(packet)
