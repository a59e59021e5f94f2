"""RTP payloads of encoded frames, made once for all who are sent to."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from fractions import Fraction

import av
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder

from streamlift.clock import VIDEO_CLOCK_HZ
from streamlift.frames import Codec, EncodedFrame

__all__ = ["Packetized", "Packetizer"]

_CACHED = 128
_TIME_BASE = Fraction(1, VIDEO_CLOCK_HZ)


@dataclass(frozen=True, slots=True, eq=False)
class Packetized:
    """Fits `peer.SentFrame`."""

    pts: int
    payloads: tuple[bytes, ...]


class Packetizer:
    """RTP payloads of encoded frames (RFC 6184, RFC 7741), made once and shared by all viewers."""

    def __init__(self) -> None:
        # Keyed by identity; the frame itself is kept in the value so that its id stays its own.
        self._made: OrderedDict[int, tuple[EncodedFrame, Packetized]] = OrderedDict()
        self._h264 = H264Encoder()
        self._vp8 = Vp8Encoder()

    def packetize(self, frame: EncodedFrame) -> Packetized:
        made = self._made.get(id(frame))
        if made is not None:
            return made[1]
        packet = av.Packet(frame.data)
        packet.pts = frame.pts
        packet.time_base = _TIME_BASE
        packer = self._h264 if frame.rendition.codec is Codec.H264 else self._vp8
        payloads, _ = packer.pack(packet)
        packetized = Packetized(frame.pts, tuple(payloads))
        self._made[id(frame)] = (frame, packetized)
        if len(self._made) > _CACHED:
            self._made.popitem(last=False)
        return packetized
