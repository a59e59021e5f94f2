"""Writing a video: opened with all that is known of it, then fed with pictures and packets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from streamlift.codec.resample import Resampler
from streamlift.frames import Size
from streamlift.offline.description import Description, main_video
from streamlift.offline.names import url
from streamlift.offline.pictures import Picture, frame_of, resized
from streamlift.offline.reading import TrackPacket
from streamlift.offline.steps import Notes, step
from streamlift.offline.targets import Container, Encoding, even, quiet
from streamlift.offline.tracks import Track, add_tracks

__all__ = ["VideoWriter", "open_writer", "padded"]

_FINEST = 1_000_000
_OWN_TITLES = ("encoder", "major_brand", "minor_version", "compatible_brands", "duration")


class VideoWriter:
    """One target; used by one thread. `take` pictures of any size and packets of other tracks."""

    def __init__(
        self,
        target: Path,
        output: OutputContainer,
        container: Container,
        encoding: Encoding,
        about: Description,
        size: Size,
        aspect: Fraction,
        source: InputContainer | None,
        start_offset_s: Fraction,
        notes: Notes,
    ) -> None:
        self._target, self._output, self._about, self._size = target, output, about, size
        self._encoding, self._container = encoding, container
        self._durations: dict[int, int] = {}
        self._base = _time_base(about, container)
        self._last = -1
        self._notes = notes
        self._came: Size | None = None
        self._resampler = Resampler()
        """The size of the first picture."""
        self._held: av.Packet[VideoStream] | None = None
        self._first_dts: int | None = None
        self._start: int | None = None
        self._end = 0
        self.written = 0
        with step("writing", target):
            self._stream = _picture_track(output, encoding, about, size, aspect, self._base)
            if not container.reorders:
                self._stream.codec_context.max_b_frames = 0
            self._tracks: dict[int, Track] = {}
            if source is not None:
                chosen = main_video(source)
                _titles(output, self._stream, about, chosen)
                self._tracks = add_tracks(output, container, source, chosen, notes)
                _chapters(output, container, source, start_offset_s, notes)
        with step("encoding", target):
            output.start_encoding()

    @property
    def tracks(self) -> set[int]:
        """Indexes of the source's tracks that go along."""
        return set(self._tracks)

    def take(self, item: Picture | TrackPacket) -> None:
        """Raises MediaError that says whether encoding or writing failed."""
        if isinstance(item, Picture):
            self._picture(item)
            return
        track = self._tracks.get(item.stream.index)
        if track is not None:
            with step("writing", self._target):
                for packet in track.take(item.packet):
                    self._output.mux(packet)

    def finish(self) -> None:
        """Encode what is owed and write the end."""
        with step("encoding", self._target):
            packets = self._stream.encode(None)
        with step("writing", self._target):
            self._mux(packets)
            self._mux_held(last=True)
            for track in self._tracks.values():
                for packet in track.finish():
                    self._output.mux(packet)
            self._output.close()

    def _picture(self, picture: Picture) -> None:
        if self._came is not None and picture.size != self._came:
            self._notes.count("pictures of another size were fitted to the first one's")
        self._came = self._came or picture.size
        shown = padded(resized(picture, self._size, self._resampler), odd=self._encoding.odd)
        frame = frame_of(shown, self._about.colour)
        frame.colorspace = self._stream.codec_context.colorspace
        frame.pts = self._time(picture.time)
        frame.time_base = self._base
        if frame.pts <= self._last:
            # In a form whose clock ticks once a picture.
            self._notes.count("pictures came between two ticks of this container and were left out")
            return
        self._last = frame.pts
        if picture.duration:
            ticks = max(1, round(picture.duration * self._about.time_base / self._base))
            self._durations[frame.pts] = ticks
        with step("encoding", self._target):
            packets = self._stream.encode(frame)
        with step("writing", self._target):
            self._mux(packets)
        self.written += 1

    def _time(self, ticks: int) -> int:
        return round(ticks * self._about.time_base / self._base)

    def _mux(self, packets: list[av.Packet[VideoStream]]) -> None:
        for packet in packets:
            pts, dts = packet.pts, packet.dts
            if pts is None or dts is None:
                self._output.mux(packet)
                continue
            duration = self._durations.pop(pts, 0)
            if duration:
                packet.duration = duration
            self._first_dts = dts if self._first_dts is None else self._first_dts
            self._start = pts if self._start is None else min(self._start, pts)
            self._end = max(self._end, pts + (packet.duration or 0))
            self._mux_held()
            self._held = packet

    def _mux_held(self, *, last: bool = False) -> None:
        """One packet waits, because the last one's duration says how long the whole is."""
        packet, self._held = self._held, None
        if packet is None or packet.dts is None:
            return
        if last and self._container.form in ("mp4", "mov") and self._first_dts is not None:
            # These forms add up decoding times, which run ahead of the last pictures shown.
            left = self._end - (self._start or 0) - (packet.dts - self._first_dts)
            packet.duration = max(packet.duration or 0, left)
        self._output.mux(packet)


@contextmanager
def open_writer(part: Path, target: Path, container: Container) -> Iterator[OutputContainer]:
    """The container of the target, written at `part`. Left unfinished if the block fails."""
    with step("writing", target):
        output = av.open(url(part), "w", format=container.form)
    try:
        yield output
    finally:
        # If the block failed, its error is the one to hear of; a finished target was closed by
        # the writer, and closing again does nothing.
        with suppress(av.FFmpegError, OSError, ValueError):
            output.close()


def padded(picture: Picture, *, odd: bool) -> Picture:
    """With even sides, the last column or row repeated, unless `odd` ones are fine."""
    right, down = picture.size.width % 2, picture.size.height % 2
    if odd or not (right or down):
        return picture
    return picture.with_planes(
        np.pad(picture.y, ((0, down), (0, right)), mode="edge"), picture.u, picture.v
    )


def _picture_track(
    output: OutputContainer,
    encoding: Encoding,
    about: Description,
    size: Size,
    aspect: Fraction,
    base: Fraction,
) -> VideoStream:
    rate = about.rate or Fraction(25)
    stream = output.add_stream(encoding.encoder, rate=rate)
    assert isinstance(stream, VideoStream)
    size = size if encoding.odd else even(size)
    stream.width, stream.height = size.width, size.height
    stream.pix_fmt = encoding.form
    context, tags = stream.codec_context, about.colour
    context.time_base = base
    context.sample_aspect_ratio = aspect
    context.colorspace = tags.matrix_of(about.size)
    context.color_primaries = tags.primaries
    context.color_trc = tags.transfer
    context.color_range = 2 if tags.full_range else 1
    if encoding.codec == "hevc" and output.format.name in ("mp4", "mov"):
        context.codec_tag = "hvc1"  # Apple's players know HEVC by no other
    options: dict[str, str] = {**encoding.options, **quiet(encoding.encoder)}
    upright = not (about.turn.transpose or about.turn.mirror or about.turn.flip)
    if (
        about.siting is not None
        and about.subsampling == "420"
        and (upright or about.siting == "center")
    ):
        options["chroma_sample_location"] = about.siting
    _say_light(encoding.encoder, about, options)
    stream.options = dict[str, object](options)
    return stream


def _say_light(encoder: str, about: Description, options: dict[str, str]) -> None:
    """HDR10's values, in each encoder's own spelling."""
    light = about.light
    level = ",".join(map(str, light.brightest)) if light.brightest else None
    if encoder == "libx265":
        said = [f"master-display={light.x265()}"] if light.mastering else []
        said += [f"max-cll={level}"] if level else []
        said += ["hdr10=1", "repeat-headers=1"] if about.colour.hdr else []
        options["x265-params"] = ":".join([options["x265-params"], *said])
    elif encoder == "libx264":
        said = [f"mastering-display={light.x265()}"] if light.mastering else []
        said += [f"cll={level}"] if level else []
        options["x264-params"] = ":".join([options["x264-params"], *said])
    elif encoder == "libsvtav1":
        said = [f"mastering-display={light.svt()}"] if light.mastering else []
        said += [f"content-light={level}"] if level else []
        if said:
            options["svtav1-params"] = ":".join(said)


def _time_base(about: Description, container: Container) -> Fraction:
    if container.even_times:
        return 1 / (about.grid or about.rate or Fraction(25))
    base = about.time_base
    return base if base.denominator <= _FINEST and base.numerator < 2**16 else Fraction(1, 90000)


def _titles(
    output: OutputContainer, stream: VideoStream, about: Description, source: VideoStream
) -> None:
    titles = {k: v for k, v in about.title.items() if k.lower() not in _OWN_TITLES}
    if output.format.name == "mpegts" and "title" in titles:
        titles["service_name"] = titles["title"]  # the only name that this form has
    output.metadata.update(titles)
    stream.metadata.update(
        {
            k: v
            for k, v in source.metadata.items()
            if k.lower() in ("language", "title", "timecode", "handler_name")
        }
    )
    stream.disposition = source.disposition


def _chapters(
    output: OutputContainer,
    container: Container,
    source: InputContainer,
    start_offset_s: Fraction,
    notes: Notes,
) -> None:
    chapters = source.chapters()
    if not chapters:
        return
    if not container.chapters:
        notes.say(f"{len(chapters)} chapters are left out: {container.form} files hold none")
        return
    for chapter in chapters:
        base = chapter["time_base"]
        if base:
            shift = round(start_offset_s / base)
            chapter["start"] = max(0, chapter["start"] + shift)
            chapter["end"] = max(0, chapter["end"] + shift)
    output.set_chapters(chapters)
