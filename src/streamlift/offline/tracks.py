"""Sound, subtitles, cover pictures and fonts: each goes along as it is, or made anew, or is named.

Whether a container holds a track as it is gets tried on an empty file of that form first, so that
nothing fails once pictures are being made.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.stream import AttachmentStream, Disposition, Stream
from av.subtitles.stream import SubtitleStream

from streamlift.offline.steps import Notes
from streamlift.offline.targets import Container

__all__ = ["Track", "add_tracks", "kept_along"]

_TEXT = ("subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text", "ttml")
_MUX_FAULTS = (av.FFmpegError, ValueError, TypeError, OverflowError, NotImplementedError)


class Track(Protocol):
    """A track of the target that takes the packets of one of the source."""

    def take(self, packet: av.Packet[Any]) -> Iterator[av.Packet[Any]]:
        """The packets to be muxed for this one of the source."""
        ...

    def finish(self) -> Iterator[av.Packet[Any]]: ...


def kept_along(source: InputContainer, chosen: Stream) -> list[Stream]:
    """The tracks besides the picture that may go along."""
    return [s for s in source.streams if s is not chosen and s.type in ("audio", "subtitle")]


def add_tracks(
    output: OutputContainer,
    container: Container,
    source: InputContainer,
    chosen: Stream,
    notes: Notes,
) -> dict[int, Track]:
    """Add what goes along to `output`; returns the tracks by the index of the source's.

    What does not go along is said in `notes`.
    """
    tracks: dict[int, Track] = {}
    for stream in source.streams:
        if stream is chosen:
            continue
        name = _name(stream)
        if isinstance(stream, AudioStream):
            track = _sound(output, container, stream, notes)
        elif isinstance(stream, SubtitleStream):
            track = _subtitle(output, container, stream, notes)
        elif isinstance(stream, AttachmentStream):
            track = None
            if container.attachments and stream.data:
                output.add_attachment(
                    stream.metadata.get("filename", stream.name or "file"),
                    stream.mimetype or "application/octet-stream",
                    stream.data,
                )
            else:
                notes.say(f"{name} is left out: {container.form} files hold no attachments")
        else:
            track = None
            if not _implied(stream):
                notes.say(f"{name} is left out")
        if track is not None:
            tracks[stream.index] = track
    return tracks


@dataclass(slots=True)
class _Copied:
    """Packets as they are; one that would go back in time is left out."""

    stream: Stream
    notes: Notes
    last_dts: Fraction | None = None

    def take(self, packet: av.Packet[Any]) -> Iterator[av.Packet[Any]]:
        base, dts = packet.time_base, packet.dts
        if dts is not None and base is not None:
            at = dts * base
            if self.last_dts is not None and at < self.last_dts:
                self.notes.count("packets of sound or subtitles overlapped and were left out")
                return
            self.last_dts = at
        packet.stream = self.stream
        yield packet

    def finish(self) -> Iterator[av.Packet[Any]]:
        yield from ()


class _Sound:
    """Sound decoded and encoded anew; gaps become silence, so that it stays in step."""

    def __init__(self, source: AudioStream, target: AudioStream, notes: Notes) -> None:
        self._source, self._target, self._notes = source, target, notes
        self._graph: Graph | None = None
        self._form: tuple[str, int, str] | None = None

    def take(self, packet: av.Packet[Any]) -> Iterator[av.Packet[Any]]:
        try:
            frames: list[Any] = packet.decode()
        except av.FFmpegError:
            self._notes.count("damaged packets of sound were skipped")
            return
        for frame in frames:
            assert isinstance(frame, av.AudioFrame)
            form = (frame.format.name, frame.sample_rate, frame.layout.name)
            if self._graph is not None and form != self._form:
                yield from self._drained()
            if self._graph is None:
                self._graph, self._form = _resampling(frame, self._target), form
            self._graph.push(frame)
            yield from self._ready()

    def finish(self) -> Iterator[av.Packet[Any]]:
        try:
            last = self._source.codec_context.decode(None)
        except av.FFmpegError:
            last = []
        for frame in last:
            if self._graph is not None:
                self._graph.push(frame)
        yield from self._drained()
        yield from self._target.encode(None)

    def _drained(self) -> Iterator[av.Packet[Any]]:
        if self._graph is not None:
            self._graph.push(None)
            yield from self._ready()
            self._graph = None

    def _ready(self) -> Iterator[av.Packet[Any]]:
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            assert isinstance(frame, av.AudioFrame)
            yield from self._target.encode(frame)


class _Subtitle:
    """Text subtitles decoded and written in the container's own form."""

    def __init__(self, source: SubtitleStream, target: SubtitleStream, notes: Notes) -> None:
        self._source, self._target, self._notes = source, target, notes

    def take(self, packet: av.Packet[Any]) -> Iterator[av.Packet[Any]]:
        if not packet.size or packet.pts is None or packet.time_base is None:
            return
        try:
            shown = self._source.decode2(packet)
            if shown is None or not len(shown):
                return
            coded = self._target.codec_context.encode_subtitle(shown)
        except _MUX_FAULTS:
            self._notes.count("subtitles could not be read and were left out")
            return
        coded.stream = self._target
        coded.time_base = Fraction(1, 1000)
        coded.pts = coded.dts = round(packet.pts * packet.time_base * 1000)
        coded.duration = round((packet.duration or 0) * packet.time_base * 1000)
        yield coded

    def finish(self) -> Iterator[av.Packet[Any]]:
        yield from ()


def _sound(
    output: OutputContainer, container: Container, stream: AudioStream, notes: Notes
) -> Track | None:
    name = _name(stream)
    if _held(container, lambda out: out.add_stream_from_template(stream)):
        copied = output.add_stream_from_template(stream)
        _take_over(stream, copied)
        return _Copied(copied, notes)
    context = stream.codec_context
    if context.name and context.sample_rate and context.layout.nb_channels:
        rate = 48000 if container.sound == "libopus" else min(48000, context.sample_rate)
        layout = {1: "mono", 2: "stereo"}.get(context.layout.nb_channels, "5.1")
        if container.sound == "libmp3lame" and layout == "5.1":
            layout = "stereo"

        def add(out: OutputContainer) -> AudioStream:
            made = out.add_stream(container.sound, rate=rate)
            assert isinstance(made, AudioStream)
            made.layout = layout
            made.bit_rate = 96_000 * (1 if layout == "mono" else 2 if layout == "stereo" else 4)
            return made

        if _held(container, add):
            target = add(output)
            _take_over(stream, target)
            notes.say(f"{name} is encoded anew ({container.sound}): {container.form} needs it")
            return _Sound(stream, target, notes)
    notes.say(f"{name} is left out: {container.form} files cannot hold it")
    return None


def _subtitle(
    output: OutputContainer, container: Container, stream: SubtitleStream, notes: Notes
) -> Track | None:
    name, codec = _name(stream), _codec(stream)
    if _held(container, lambda out: out.add_stream_from_template(stream)):
        copied = output.add_stream_from_template(stream)
        _take_over(stream, copied)
        return _Copied(copied, notes)
    if container.subtitles is not None and codec in _TEXT:
        wanted = container.subtitles

        def add(out: OutputContainer) -> SubtitleStream:
            made = out.add_stream(wanted)
            assert isinstance(made, SubtitleStream)
            header = stream.codec_context.subtitle_header
            made.codec_context.subtitle_header = header or _PLAIN_HEADER
            made.codec_context.time_base = Fraction(1, 1000)
            made.time_base = Fraction(1, 1000)
            return made

        if _held(container, add):
            target = add(output)
            _take_over(stream, target)
            if codec in ("ass", "ssa"):
                notes.say(f"{name} loses its styles: {container.form} files hold plain ones")
            return _Subtitle(stream, target, notes)
    notes.say(f"{name} is left out: {container.form} files cannot hold it")
    return None


def _held(container: Container, add: Callable[[OutputContainer], Stream]) -> bool:
    """Whether a file of this form opens with such a track; tried in memory."""
    try:
        with av.open(io.BytesIO(), "w", format=container.form) as trial:
            stream = add(trial)
            if not _known(trial, stream):
                return False
            trial.start_encoding()
    except _MUX_FAULTS:
        return False
    return True


def _known(trial: OutputContainer, stream: Stream) -> bool:
    """Some forms write a header for any codec and say afterwards which they know."""
    known = _IN_TS if trial.format.name == "mpegts" else trial.supported_codecs
    # MP4 takes raw sound by its newest edition only, and few players know that.
    raw = trial.format.name == "mp4" and _codec(stream).startswith("pcm_")
    return _codec(stream) in known and not raw


_IN_TS = {
    *("aac", "mp3", "mp2", "ac3", "eac3", "dts", "opus", "truehd", "aac_latm"),
    *("dvb_subtitle", "dvbsub", "dvb_teletext", "hdmv_pgs_subtitle"),
}
"""MPEG-TS takes any codec as private data, which no player knows."""


def _resampling(frame: av.AudioFrame, target: AudioStream) -> Graph:
    context = target.codec_context
    graph = Graph()
    source = graph.add_abuffer(
        format=frame.format.name,
        sample_rate=frame.sample_rate,
        layout=frame.layout.name,
        time_base=frame.time_base or Fraction(1, frame.sample_rate),
    )
    steps = [
        graph.add("aresample", "async=1"),
        graph.add(
            "aformat",
            f"sample_fmts={context.format.name}:sample_rates={context.sample_rate}"
            f":channel_layouts={context.layout.name}",
        ),
    ]
    if context.frame_size:
        steps.append(graph.add("asetnsamples", f"n={context.frame_size}:p=0"))
    steps.append(graph.add("abuffersink"))
    for before, after in zip([source, *steps], steps, strict=False):
        before.link_to(after)
    graph.configure()
    return graph


def _take_over(source: Stream, target: Stream) -> None:
    """Language, title and whether it is the default."""
    target.metadata.update(
        {k: v for k, v in source.metadata.items() if k.lower() in ("language", "title")}
    )
    language = source.language
    if language and target.container.format.name == "mov":
        # QuickTime counts languages by the older of the two three-letter codes.
        target.metadata["language"] = _OLDER_CODES.get(language, language)
    target.disposition = source.disposition


def _implied(stream: Stream) -> bool:
    """Data that the target gets anyhow: chapters as a text track, the time code by its tag."""
    return stream.type == "data" and _codec(stream) in ("bin_data", "", "tmcd", "none")


def _name(stream: Stream) -> str:
    kinds = {"audio": "sound", "subtitle": "subtitle", "video": "picture", "data": "data"}
    kind = kinds.get(stream.type, stream.type)
    if stream.type == "video" and stream.disposition & Disposition.attached_pic:
        kind = "cover"
    codec = _codec(stream)
    language = stream.language
    details = ", ".join(x for x in (language, codec) if x and x != "und")
    return f"{kind} track {stream.index}" + (f" ({details})" if details else "")


def _codec(stream: Stream) -> str:
    context = getattr(stream, "codec_context", None)
    return "" if context is None else str(context.codec.canonical_name)


_OLDER_CODES = dict(
    pair.split(":")
    for pair in [
        "deu:ger",
        "fra:fre",
        "nld:dut",
        "ces:cze",
        "zho:chi",
        "ell:gre",
        "eus:baq",
        "fas:per",
        "hye:arm",
        "isl:ice",
        "kat:geo",
        "mkd:mac",
        "msa:may",
        "mya:bur",
        "ron:rum",
        "slk:slo",
        "sqi:alb",
        "cym:wel",
        "bod:tib",
    ]
)

_PLAIN_HEADER = (
    b"[Script Info]\r\nScriptType: v4.00+\r\nPlayResX: 384\r\nPlayResY: 288\r\n\r\n"
    b"[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, "
    b"OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, "
    b"Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\r\n"
    b"Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1\r\n"
    b"\r\n[Events]\r\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, "
    b"Text\r\n"
)
