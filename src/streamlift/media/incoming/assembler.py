"""RTP packets into coded pictures, released as soon as the last packet is there. Pure.

Stock aiortc waits for the first packet of the next picture, one frame time later; here a gap-free
run that ends with the marker bit is released at once (RFC 6184 section 5.1: the marker bit is set
on the last packet of an access unit). A change of timestamp ends a picture too, for senders that
never set the marker; and where more of a picture follows its marker, timestamps alone decide from
then on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streamlift.clock import VIDEO_CLOCK_HZ
from streamlift.media.rtc.packet import MediaPacket

__all__ = ["AssembledPicture", "Assembly", "PictureAssembler"]

GIVE_UP_S = 0.15
"""How long a lost packet is waited for at least: packets also overtake each other."""
LONGEST_WAIT_S = 1.0
MOST_BYTES = 8 * 1024 * 1024
"""Of packets kept; a picture of 1280x1280 that is nothing but noise has 2 MB."""
FORMER_SILENT_S = 1.0
"""A former RTP stream is followed again when the one of now has been silent for so long."""
_LATE = 3000
"""Numbers that a packet may be behind: a second of 30 Mbit/s. Further back a sender began anew."""
_AHEAD = 1 << 14
_HALF = 1 << 15
_MOST_MISSING = 512


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
    """Follows one RTP stream at a time; a hole is waited for as long as `wait_for` says.

    `is_picture(payload_type, data)` tells units that hold a picture from those that hold only
    parameter sets, which may share the timestamp of the picture behind them.
    """

    def __init__(self, is_picture: Callable[[int, bytes], bool] = lambda *_: True) -> None:
        self._is_picture = is_picture
        self._patience_s = GIVE_UP_S
        self._now_s = 0.0
        self._ssrc: int | None = None
        self._former: set[int] = set()
        self._heard_s = 0.0
        # Numbers are sequence numbers without the wrapping.
        self._next = 0
        """The first number that is missing."""
        self._top = 0
        """The greatest number that came."""
        self._top_timestamp = 0
        self._suspect: int | None = None
        self._run: list[MediaPacket] = []
        """The packets before `_next` of the picture that is not complete."""
        self._ahead: dict[int, tuple[MediaPacket, float]] = {}
        """Packets behind the hole at `_next`, and when they came."""
        self._bytes = 0
        self._hole_since_s: float | None = None
        self._torn: int | None = None
        """The timestamp of a picture of which packets were given up."""
        self._ended: int | None = None
        """The timestamp of the picture that a marker ended last."""
        self._by_marker = True
        self._lost = False
        self._last_timestamp: int | None = None
        self._pts = 0
        self._finished_s: float | None = None

    def wait_for(self, round_trip_s: float) -> None:
        """Wait for lost packets as a sender so far away needs: asked for, lost, asked for again."""
        self._patience_s = min(max(GIVE_UP_S, 2 * round_trip_s + 0.1), LONGEST_WAIT_S)

    def go_over(self, ssrc: int) -> None:
        """Follow this RTP stream with its next packet, be it that it was left before."""
        self._former.discard(ssrc)

    def add(self, packet: MediaPacket, now_s: float) -> Assembly:
        """Take a packet; sequence numbers and timestamps may wrap around."""
        self._now_s = now_s
        first = self._ssrc is None
        if packet.ssrc != self._ssrc and not self._follow(packet):
            return Assembly()
        self._heard_s = now_s
        number = self._number(packet)
        gave_up = False
        if number < self._next:
            if not self._begins_anew(packet, number):
                return Assembly()  # late: given up already, or a duplicate
            gave_up = True
        elif number - self._next >= _AHEAD:
            gave_up = True
        if gave_up:
            self._start(packet)
            number = self._next
        if number in self._ahead:
            return Assembly()
        self._ahead[number] = packet, now_s
        self._bytes += len(packet.data)
        if number >= self._top:
            self._top, self._top_timestamp = number, packet.timestamp
        pictures = self._advance()
        if self._hole_since_s is not None and now_s - self._hole_since_s > self._patience_s:
            gave_up = True
            self._skip_hole()
            pictures += self._advance()
        if self._bytes > MOST_BYTES:
            gave_up = True
            self._start(packet)
            self._next, self._torn = self._top + 1, packet.timestamp
        return Assembly(tuple(pictures), gave_up and not first)

    @property
    def holes(self) -> int:
        """How many packets are missing now."""
        return self._top + 1 - self._next - len(self._ahead) if self._ahead else 0

    def missing(self) -> list[int]:
        """Sequence numbers of packets in the holes, oldest first, the first 512."""
        found: list[int] = []
        for number in range(self._next, self._top if self._ahead else self._next):
            if number not in self._ahead:
                found.append(number & 0xFFFF)
                if len(found) == _MOST_MISSING:
                    break
        return found

    # ---- which packets belong ----

    def _follow(self, packet: MediaPacket) -> bool:
        """Whether to go over to another RTP stream: to a new one at once (an encoder that began
        anew in the same session), to a former one when the one of now is silent."""
        if packet.ssrc in self._former and self._now_s - self._heard_s < FORMER_SILENT_S:
            return False
        if self._ssrc is not None:
            self._former = {*list(self._former)[-7:], self._ssrc} - {packet.ssrc}
            self._lost = True
        self._ssrc = packet.ssrc
        self._start(packet, lost=self._lost)
        self._by_marker, self._last_timestamp = True, None
        return True

    def _start(self, packet: MediaPacket, *, lost: bool = True) -> None:
        """Forget what is here; the stream begins with this packet."""
        self._ahead.clear()
        self._run.clear()
        self._bytes = 0
        self._next = self._top = packet.sequence_number
        self._top_timestamp = packet.timestamp
        self._suspect = self._torn = self._ended = self._hole_since_s = None
        self._lost = lost

    def _number(self, packet: MediaPacket) -> int:
        ahead = (packet.sequence_number - self._next) & 0xFFFF
        return self._next + (ahead - 0x10000 if ahead >= _HALF else ahead)

    def _begins_anew(self, packet: MediaPacket, number: int) -> bool:
        """Whether a packet from behind is no late one (RFC 3550 appendix A.1): it is far behind,
        or the second of two in order whose timestamps are newer than all that came."""
        if self._next - number > _LATE:
            return True
        newer = 0 < (packet.timestamp - self._top_timestamp) & 0xFFFFFFFF < 1 << 31
        suspected, self._suspect = self._suspect, number if newer else None
        return newer and suspected is not None and number == suspected + 1

    # ---- pictures ----

    def _advance(self) -> list[AssembledPicture]:
        """Take packets into the run up to the next hole."""
        pictures: list[AssembledPicture] = []
        before = self._next
        while (entry := self._ahead.pop(self._next, None)) is not None:
            self._next += 1
            pictures += self._append(entry[0])
        if not self._ahead:
            self._hole_since_s = None
        elif self._hole_since_s is None or self._next != before:
            self._hole_since_s = min(arrived_s for _, arrived_s in self._ahead.values())
        return pictures

    def _append(self, packet: MediaPacket) -> list[AssembledPicture]:
        pictures: list[AssembledPicture] = []
        if self._run and packet.timestamp != self._run[0].timestamp:
            pictures += self._finish()
        if not self._run and packet.data and packet.timestamp == self._ended:
            # More of a picture that was given out at its marker: that was none. The decoder has
            # a part of it, so the next picture counts as after a loss.
            self._by_marker, self._torn, self._lost = False, packet.timestamp, True
        self._run.append(packet)
        if packet.marker and self._by_marker:
            pictures += self._finish(at_marker=True)
        return pictures

    def _finish(self, *, at_marker: bool = False) -> list[AssembledPicture]:
        """The run as a picture; none comes of padding or of the rest of a torn one."""
        run, self._run = self._run, []
        timestamp, payload_type = run[0].timestamp, run[0].payload_type
        data = b"".join(p.data for p in run)
        self._bytes -= len(data)
        if timestamp == self._torn or not data:
            return []
        self._torn = self._ended = None
        if at_marker and self._is_picture(payload_type, data):
            self._ended = timestamp
        self._pts += self._step(timestamp)
        self._last_timestamp, self._finished_s = timestamp, self._now_s
        after_loss, self._lost = self._lost, False
        return [AssembledPicture(self._pts, payload_type, data, after_loss)]

    def _step(self, timestamp: int) -> int:
        """By how much pts goes on; over to another RTP stream by the time that has passed."""
        if self._last_timestamp is not None:
            step = (timestamp - self._last_timestamp) & 0xFFFFFFFF
            return step - (1 << 32) if step >= 1 << 31 else step
        if self._finished_s is None:
            return 0
        return max(1, round((self._now_s - self._finished_s) * VIDEO_CLOCK_HZ))

    def _skip_hole(self) -> None:
        """Go on at the first picture that begins behind the hole; what is torn is dropped."""
        self._lost = True
        self._bytes -= sum(len(p.data) for p in self._run)
        self._run.clear()
        number = min(self._ahead)
        torn = self._ahead[number][0].timestamp
        while (entry := self._ahead.get(number)) is not None and entry[0].timestamp == torn:
            self._bytes -= len(entry[0].data)
            del self._ahead[number]
            number += 1
        # Behind the torn one begins a picture, or the next hole, which gets its own time.
        self._next, self._torn, self._hole_since_s = number, None if entry else torn, None
