"""Reading a source: pictures and the packets of its other tracks, in the file's order.

What is damaged is skipped and counted, clocks are mended for all tracks together, and an end
that comes before the promised one is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Stream

from streamlift.offline.clocks import ClockMender
from streamlift.offline.description import Description, main_video
from streamlift.offline.pictures import Deinterlacer, Picture, picture_of_frame
from streamlift.offline.steps import Notes, shown, why

__all__ = ["Reader", "TrackPacket"]

_MOST_FAILURES = 200
"""Errors in a row after which the rest of a file is taken for lost."""

DAMAGED = "damaged packets of the picture were skipped"


@dataclass(frozen=True, slots=True, eq=False)
class TrackPacket:
    """A packet of another track, its times mended; `stream` is the source's."""

    stream: Stream
    packet: av.Packet[Any]


class Reader:
    """One pass over an opened source.

    `share` is how much of the file was read, 0 to 1. After the end: `pictures`, and `cut_off`,
    which says what lacks, or None for a whole file.
    """

    def __init__(
        self,
        source: Path,
        container: InputContainer,
        description: Description,
        others: Sequence[Stream],
        notes: Notes,
        *,
        bits: int,
    ) -> None:
        self._source, self._container, self._description = source, container, description
        self._video = main_video(container)
        self._others = tuple(others)
        self._kept = {s.index for s in others}
        self._notes = notes
        self._bits = bits
        self._clocks = ClockMender(description.start_s, description.free_clock)
        self._deinterlacer = Deinterlacer(self._video)
        self._last: int | None = None
        self._bytes = container.size or 0
        self._packets = 0
        self._end_s = 0.0
        self._failure: str | None = None
        self.pictures = 0
        self.share = 0.0
        self.cut_off: str | None = None

    @property
    def start_offset_s(self) -> Fraction:
        """What is added to times at the beginning of the source."""
        return self._clocks.start_offset_s

    def keep(self, tracks: set[int]) -> None:
        """Give only these of the other tracks, by index; the rest is read for its end."""
        self._kept &= tracks

    def __iter__(self) -> Iterator[Picture | TrackPacket]:
        self._video.thread_type = "AUTO"
        for packet in self._demuxed():
            if packet.stream is not self._video:
                if packet.dts is None:
                    packet.dts = packet.pts
                if packet.dts is not None and packet.size:
                    self._mend(packet)
                    if packet.stream.index in self._kept:
                        yield TrackPacket(packet.stream, packet)
                continue
            if packet.size:
                self._packets += 1
                self._mend(packet)
            for decoded in self._decoded(packet):
                yield from map(self._picture, self._deinterlacer.push(decoded))
        yield from map(self._picture, self._deinterlacer.finish())
        if self._clocks.mended:
            self._notes.say(
                f"the clock of the source jumped {self._clocks.mended} times; "
                "picture and sound were joined without a gap"
            )
        if self._deinterlacer.used:
            self._notes.say("the source is interlaced; it was deinterlaced (bwdif)")
        self.cut_off = self._what_lacks()

    def _demuxed(self) -> Iterator[av.Packet[Any]]:
        failures = 0
        while True:
            try:
                for packet in self._container.demux(self._video, *self._others):
                    if packet.size:
                        failures = 0
                    if packet.pos is not None and self._bytes:
                        self.share = max(self.share, min(1.0, packet.pos / self._bytes))
                    yield packet
                return
            except av.InvalidDataError:
                failures += 1
                self._notes.count("damaged places of the file were skipped")
                if failures > _MOST_FAILURES:
                    self._failure = "the rest of the file is damaged"
                    return
            except (av.FFmpegError, OSError) as error:
                self._failure = why(error)
                return

    def _mend(self, packet: av.Packet[Any]) -> None:
        base = packet.time_base
        duration_s = (packet.duration or 0) * base
        dts_s = None if packet.dts is None else packet.dts * base
        offset = round(self._clocks.offset_s(packet.stream.index, dts_s, duration_s) / base)
        if packet.dts is not None:
            packet.dts += offset
        if packet.pts is not None:
            packet.pts += offset
        begin = packet.pts if packet.pts is not None else packet.dts
        if begin is not None:
            self._end_s = max(self._end_s, float(begin * base + duration_s))

    def _decoded(self, packet: av.Packet[Any]) -> list[av.VideoFrame]:
        try:
            frames = packet.decode()
        except av.FFmpegError:
            self._notes.count(DAMAGED)
            return []
        if any(f.is_corrupt for f in frames):
            self._notes.count("pictures are damaged and were mended by the decoder")
        return frames

    def _picture(self, frame: av.VideoFrame) -> Picture:
        about = self._description
        self.pictures += 1
        return picture_of_frame(
            frame,
            bits=self._bits,
            tags=about.colour,
            turn=about.turn,
            time=self._time(frame),
            duration=round(
                (frame.duration or 0) * (frame.time_base or about.time_base) / about.time_base
            ),
        )

    def _time(self, frame: av.VideoFrame) -> int:
        """In ticks of the track's time base; it never stands still or goes back."""
        found = frame.pts if frame.pts is not None else frame.dts
        base = self._description.time_base
        rate = self._description.rate or Fraction(25)
        usual = max(1, round(1 / (rate * base)))
        if found is not None and frame.time_base and frame.time_base != base:
            found = round(found * frame.time_base / base)
        if self._last is None:
            time = found if found is not None else self._first_time()
        elif found is None:
            time = self._last + usual
        else:
            time = max(found, self._last + 1)
        self._last = time
        return time

    def _first_time(self) -> int:
        begins = self._description.begins
        if begins is None:
            return 0
        return begins + round(self._clocks.start_offset_s / self._description.time_base)

    def _what_lacks(self) -> str | None:
        about, where = self._description, f"reading {shown(self._source)}"
        if self._failure is not None:
            return f"{where}: after {self.pictures} pictures {self._failure}"
        if about.pictures is not None and self._packets < about.pictures:
            return f"{where}: it is cut off: {self._packets} of {about.pictures} pictures are there"
        end_s = self._end_s - float(about.start_s + self._clocks.start_offset_s)
        promised_s = about.duration_s
        sure = about.pictures is None and not about.free_clock and not self._clocks.mended
        if promised_s and sure and end_s < promised_s - max(0.3, 0.01 * promised_s):
            return f"{where}: it is cut off: {end_s:.1f} of {promised_s:.1f} s are there"
        return None
