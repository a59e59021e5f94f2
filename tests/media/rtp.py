"""Small RTP packets for tests: what a sender of numbered pictures would put on the wire."""

from __future__ import annotations

from streamlift.media.rtc.packet import MediaPacket

__all__ = ["packets_of", "rtp_packet"]


def rtp_packet(
    sequence: int, timestamp: int, marker: int, data: bytes, *, ssrc: int = 1
) -> MediaPacket:
    return MediaPacket(sequence, timestamp, marker, 96, ssrc, data)


def packets_of(
    counts: list[int], *, sequence: int = 0, timestamp: int = 0, marker: bool = True
) -> list[MediaPacket]:
    """`counts[i]` packets for picture i, 3,600 ticks apart; their bytes tell picture and part."""
    packets: list[MediaPacket] = []
    for number, count in enumerate(counts):
        for part in range(count):
            packets.append(
                rtp_packet(
                    (sequence + len(packets)) & 0xFFFF,
                    (timestamp + 3600 * number) & 0xFFFFFFFF,
                    int(marker and part == count - 1),
                    bytes((number % 256, part % 256)),
                )
            )
    return packets
