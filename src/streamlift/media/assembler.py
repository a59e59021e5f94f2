"""RTP packets into coded pictures, released as soon as the last packet is there. Pure.

Stock aiortc waits for the first packet of the next picture, one frame time later; here a gap-free
run that ends with the marker bit is released at once (RFC 6184 section 5.1: the marker bit is set
on the last packet of an access unit). A change of timestamp still ends a picture, for senders that
never set the marker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["AssembledPicture", "Assembly", "PictureAssembler", "VideoPacket"]

GIVE_UP_S = 0.15
_CAPACITY = 512
_HALF = 1 << 15


class VideoPacket(Protocol):
    """What is needed of an RTP packet; `_data` is its payload without the codec's descriptor."""

    sequence_number: int
    timestamp: int
    marker: int
    payload_type: int
    ssrc: int
    _data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class AssembledPicture:
    """One complete coded picture; pts at 90 kHz, unwrapped, the first picture at 0."""

    pts: int
    payload_type: int
    data: bytes
    after_loss: bool


@dataclass(frozen=True, slots=True)
class Assembly:
    """What one packet brought about: pictures now complete, and whether packets were given up."""

    pictures: tuple[AssembledPicture, ...] = ()
    gave_up: bool = False


class PictureAssembler:
    """Reorders within a window; a hole is waited for `GIVE_UP_S`, then skipped."""

    def __init__(self) -> None:
        self._packets: dict[int, VideoPacket] = {}
        self._expected: int | None = None
        self._hole_since_s: float | None = None
        self._lost = False
        self._last_timestamp: int | None = None
        self._pts = 0

    def add(self, packet: VideoPacket, now_s: float) -> Assembly:
        sequence = packet.sequence_number
        if self._expected is None:
            self._expected = sequence
        ahead = (sequence - self._expected) & 0xFFFF
        if ahead >= _HALF:
            if 0x10000 - ahead < _CAPACITY:
                return Assembly()  # late: given up already, or a duplicate
            ahead = _CAPACITY  # far behind: the sender started anew
        gave_up = ahead >= _CAPACITY
        if gave_up:
            self._packets.clear()
            self._expected = sequence
            self._lost = True
        self._packets[sequence] = packet
        pictures = self._release()
        if self._hole() and not gave_up:
            if self._hole_since_s is None:
                self._hole_since_s = now_s
            elif now_s - self._hole_since_s > GIVE_UP_S:
                gave_up = True
                self._skip_hole()
                pictures += self._release()
        if not self._hole():
            self._hole_since_s = None
        return Assembly(tuple(pictures), gave_up)

    def missing(self) -> list[int]:
        """Sequence numbers of the packets in the holes, oldest first."""
        if not self._packets or self._expected is None:
            return []
        newest = max((s - self._expected) & 0xFFFF for s in self._packets)
        span = ((self._expected + i) & 0xFFFF for i in range(newest))
        return [s for s in span if s not in self._packets]

    def _hole(self) -> bool:
        return bool(self._packets) and self._run_ends_early()

    def _run_ends_early(self) -> bool:
        """True if a packet is missing between the expected one and the newest one."""
        assert self._expected is not None
        newest = max((s - self._expected) & 0xFFFF for s in self._packets)
        return newest + 1 != len(self._packets)

    def _release(self) -> list[AssembledPicture]:
        assert self._expected is not None
        pictures = []
        run: list[VideoPacket] = []
        at = self._expected
        while (packet := self._packets.get(at)) is not None:
            if run and packet.timestamp != run[0].timestamp:
                pictures.append(self._finish(run))
                run = []
            run.append(packet)
            at = (at + 1) & 0xFFFF
            if packet.marker:
                pictures.append(self._finish(run))
                run = []
        return pictures

    def _finish(self, run: list[VideoPacket]) -> AssembledPicture:
        for packet in run:
            del self._packets[packet.sequence_number]
        self._expected = (run[-1].sequence_number + 1) & 0xFFFF
        timestamp = run[0].timestamp
        if self._last_timestamp is not None:
            step = (timestamp - self._last_timestamp) & 0xFFFFFFFF
            self._pts += step - (1 << 32) if step >= 1 << 31 else step
        self._last_timestamp = timestamp
        after_loss, self._lost = self._lost, False
        return AssembledPicture(
            self._pts, run[0].payload_type, b"".join(p._data for p in run), after_loss
        )

    def _skip_hole(self) -> None:
        """Go on at the first picture that begins after the hole; what is torn is dropped."""
        assert self._expected is not None
        self._lost = True
        base = self._expected
        waiting = sorted(self._packets, key=lambda s: (s - base) & 0xFFFF)
        torn = self._packets[waiting[0]].timestamp
        previous = waiting[0]
        for sequence in waiting:
            starts = (sequence - previous) & 0xFFFF <= 1
            if self._packets[sequence].timestamp != torn and starts:
                self._expected = sequence
                return
            if not starts:
                torn = self._packets[sequence].timestamp
            del self._packets[sequence]
            previous = sequence
        self._expected = (previous + 1) & 0xFFFF
