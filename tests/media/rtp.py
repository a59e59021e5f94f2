"""Small RTP packets for tests: what a sender of numbered pictures would put on the wire."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Packet", "packets_of"]


@dataclass
class Packet:
    """Fits `assembler.VideoPacket`."""

    sequence_number: int
    timestamp: int
    marker: int
    _data: bytes
    payload_type: int = 96
    ssrc: int = 1


def packets_of(
    counts: list[int], *, sequence: int = 0, timestamp: int = 0, marker: bool = True
) -> list[Packet]:
    """`counts[i]` packets for picture i, 3,600 ticks apart; their bytes tell picture and part."""
    packets: list[Packet] = []
    for number, count in enumerate(counts):
        for part in range(count):
            packets.append(
                Packet(
                    (sequence + len(packets)) & 0xFFFF,
                    (timestamp + 3600 * number) & 0xFFFFFFFF,
                    int(marker and part == count - 1),
                    bytes((number % 256, part)),
                )
            )
    return packets
