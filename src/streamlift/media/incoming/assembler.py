"""RTP packets into coded pictures, released as soon as the last packet is there. Pure.

Stock aiortc waits for the first packet of the next picture, one frame time later; here a gap-free
run that ends with the marker bit is released at once (RFC 6184 section 5.1: the marker bit is set
on the last packet of an access unit). A change of timestamp still ends a picture, for senders that
never set the marker.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamlift.media.rtc.packet import MediaPacket

__all__ = ["AssembledPicture", "Assembly", "PictureAssembler"]

GIVE_UP_S = 0.15
_CAPACITY = 512
_HALF = 1 << 15


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
        self._packets: dict[int, MediaPacket] = {}
        self._arrived_s: dict[int, float] = {}
        self._expected: int | None = None
        self._torn: int | None = None
        self._lost = False
        self._last_timestamp: int | None = None
        self._pts = 0

    def add(self, packet: MediaPacket, now_s: float) -> Assembly:
        """Take a packet; sequence numbers and timestamps may wrap around."""
        sequence = packet.sequence_number
        if self._expected is None:
            self._expected = sequence
        ahead = (sequence - self._expected) & 0xFFFF
        if ahead >= _HALF and 0x10000 - ahead < _CAPACITY:
            return Assembly()  # late: given up already, or a duplicate
        gave_up = ahead >= _CAPACITY  # a hole too wide, or the sender started anew
        if gave_up:
            self._packets.clear()
            self._arrived_s.clear()
            self._expected = sequence
            self._torn = None
            self._lost = True
        self._packets.setdefault(sequence, packet)
        self._arrived_s.setdefault(sequence, now_s)
        pictures = self._release()
        if self._hole_age_s(now_s) > GIVE_UP_S:
            gave_up = True
            self._skip_hole()
            pictures += self._release()
        return Assembly(tuple(pictures), gave_up)

    @property
    def holes(self) -> int:
        """How many packets are missing now."""
        return self._newest() + 1 - len(self._packets) if self._packets else 0

    def missing(self) -> list[int]:
        """Sequence numbers of the packets in the holes, oldest first."""
        if not self.holes:
            return []
        base = self._expected or 0
        span = ((base + i) & 0xFFFF for i in range(self._newest()))
        return [s for s in span if s not in self._packets]

    def _newest(self) -> int:
        """How far the newest packet is ahead of the expected one."""
        base = self._expected or 0
        return max((s - base) & 0xFFFF for s in self._packets)

    def _hole_age_s(self, now_s: float) -> float:
        """Since when the first packet behind the oldest hole is here; 0 without a hole."""
        if not self.holes:
            return 0.0
        base = at = self._expected or 0
        while at in self._packets:
            at = (at + 1) & 0xFFFF
        hole = (at - base) & 0xFFFF
        return now_s - min(s for n, s in self._arrived_s.items() if (n - base) & 0xFFFF > hole)

    def _release(self) -> list[AssembledPicture]:
        assert self._expected is not None
        pictures = []
        run: list[MediaPacket] = []
        at = self._expected
        while (packet := self._packets.get(at)) is not None:
            if run and packet.timestamp != run[0].timestamp:
                pictures += self._finish(run)
                run = []
            run.append(packet)
            at = (at + 1) & 0xFFFF
            if packet.marker:
                pictures += self._finish(run)
                run = []
        return pictures

    def _finish(self, run: list[MediaPacket]) -> list[AssembledPicture]:
        """Take a whole run out; no picture comes of padding or of the rest of a torn one."""
        for packet in run:
            self._forget(packet.sequence_number)
        self._expected = (run[-1].sequence_number + 1) & 0xFFFF
        timestamp = run[0].timestamp
        data = b"".join(p.data for p in run)
        if timestamp == self._torn or not data:
            return []
        self._torn = None
        if self._last_timestamp is not None:
            step = (timestamp - self._last_timestamp) & 0xFFFFFFFF
            self._pts += step - (1 << 32) if step >= 1 << 31 else step
        self._last_timestamp = timestamp
        after_loss, self._lost = self._lost, False
        return [AssembledPicture(self._pts, run[0].payload_type, data, after_loss)]

    def _skip_hole(self) -> None:
        """Go on at the first picture that begins after the hole; what is torn is dropped."""
        assert self._expected is not None
        self._lost = True
        base = self._expected
        waiting = sorted(self._packets, key=lambda s: (s - base) & 0xFFFF)
        previous = (base - 1) & 0xFFFF
        torn: int | None = None
        behind_hole = False
        for sequence in waiting:
            timestamp = self._packets[sequence].timestamp
            if (sequence - previous) & 0xFFFF > 1:
                if behind_hole:
                    break  # the next hole gets its own time
                behind_hole, torn = True, timestamp
            elif behind_hole and timestamp != torn:
                self._expected, self._torn = sequence, None
                return
            self._forget(sequence)
            previous = sequence
        self._expected, self._torn = (previous + 1) & 0xFFFF, torn

    def _forget(self, sequence: int) -> None:
        del self._packets[sequence], self._arrived_s[sequence]
