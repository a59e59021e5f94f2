"""One interleaved RTP track: packets, and the reports that tie its time to the clock (RFC 3550)."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Sequence

__all__ = ["Track"]

_REPORT_EVERY_S = 5.0
_NTP_EPOCH_S = 2_208_988_800
"""From 1900, where NTP begins, to 1970."""
_SENDER_REPORT, _DESCRIPTION = 200, 202
_CNAME = b"streamlift"


class Track:
    """`channels`: those of RTP and RTCP. Numbers and times begin at random (RFC 3550 section 5.1).

    `write` packets as bytes for the connection, each with its interleaved header (RFC 2326 section
    10.12).
    """

    def __init__(self, payload_type: int, clock_hz: int, channels: tuple[int, int]) -> None:
        self.channels = channels
        self.ssrc = secrets.randbits(32)
        self._payload_type = payload_type
        self._clock_hz = clock_hz
        self._sequence = secrets.randbits(16)
        self._offset = secrets.randbits(32)
        self._packets = self._octets = 0
        self._reported_s: float | None = None

    @property
    def octets(self) -> int:
        """Payload bytes sent."""
        return self._octets

    @property
    def next_sequence(self) -> int:
        return self._sequence

    def rtp_time(self, pts: int) -> int:
        return (pts + self._offset) & 0xFFFFFFFF

    def packets(self, pts: int, payloads: Sequence[bytes]) -> bytes:
        """All packets of one picture, or of one piece of sound; the last is marked."""
        out = bytearray()
        time = self.rtp_time(pts)
        for number, payload in enumerate(payloads):
            marker = 0x80 if number == len(payloads) - 1 else 0
            header = struct.pack(
                "!BBHII", 0x80, marker | self._payload_type, self._sequence, time, self.ssrc
            )
            self._sequence = (self._sequence + 1) & 0xFFFF
            out += self._interleaved(self.channels[0], header + payload)
            self._packets += 1
            self._octets += len(payload)
        return bytes(out)

    def report(self, pts: int, unix_s: float, now_s: float) -> bytes:
        """A sender report if one is due: the picture of `pts` belongs to the wall time `unix_s`."""
        if self._reported_s is not None and now_s - self._reported_s < _REPORT_EVERY_S:
            return b""
        self._reported_s = now_s
        seconds = int(unix_s)
        fraction = int((unix_s - seconds) * (1 << 32))
        report = struct.pack(
            "!BBHIIIIII",
            0x80,
            _SENDER_REPORT,
            6,
            self.ssrc,
            (seconds + _NTP_EPOCH_S) & 0xFFFFFFFF,
            fraction & 0xFFFFFFFF,
            self.rtp_time(pts),
            self._packets & 0xFFFFFFFF,
            self._octets & 0xFFFFFFFF,
        )
        item = struct.pack("!IBB", self.ssrc, 1, len(_CNAME)) + _CNAME + b"\0"
        item += b"\0" * (-len(item) % 4)
        named = struct.pack("!BBH", 0x81, _DESCRIPTION, len(item) // 4) + item
        return self._interleaved(self.channels[1], report + named)

    @staticmethod
    def _interleaved(channel: int, packet: bytes) -> bytes:
        return struct.pack("!cBH", b"$", channel, len(packet)) + packet
