"""What is needed of a media packet that came in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["MediaPacket", "PacketSink"]


@dataclass(frozen=True, slots=True, eq=False)
class MediaPacket:
    """An RTP packet; `data` is its payload without the codec's descriptor.

    H.264 as Annex B, so that the packets of a picture joined are its access unit.
    """

    sequence_number: int
    timestamp: int
    marker: int
    payload_type: int
    ssrc: int
    data: bytes


class PacketSink(Protocol):
    """Takes every media packet of one receiver, in the order of arrival."""

    def __call__(self, packet: MediaPacket, /) -> None: ...
