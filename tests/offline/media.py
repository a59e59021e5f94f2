"""Small clips made on the spot, with any property that a file may carry, and what came of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

__all__ = [
    "Sound",
    "colour_shown",
    "make_clip",
    "pictures_of",
    "scene",
    "times_of",
    "turned",
    "with_hdr10_plus",
]

Rgb = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sound:
    """One track of sound: a tone of `hz`, so that tracks can be told apart."""

    codec: str = "aac"
    hz: int = 440
    language: str | None = None
    rate: int = 48000
    layout: str = "stereo"


def scene(number: int, width: int = 96, height: int = 64) -> Rgb:
    """A picture whose bright bar moves with `number`; the top left is red."""
    picture = np.full((height, width, 3), 60, np.uint8)
    picture[:, (number * 6) % width : (number * 6) % width + 24] = 200
    picture[: height // 4, : width // 4] = (200, 40, 40)
    return picture


@dataclass(frozen=True)
class Clip:
    """What `make_clip` makes; the defaults are a plain clip."""

    frames: int = 12
    size: tuple[int, int] = (96, 64)
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    rate: Fraction = Fraction(25)
    options: Mapping[str, str] = field(default_factory=dict)
    matrix: int | None = None
    full_range: bool | None = None
    primaries: int | None = None
    transfer: int | None = None
    aspect: Fraction | None = None
    sounds: Sequence[Sound] = ()
    subtitles: Sequence[tuple[float, float, str]] = ()
    chapters: Sequence[tuple[float, float, str]] = ()
    title: str | None = None
    pts: Sequence[int] | None = None
    time_base: Fraction | None = None
    still: bool = False


def make_clip(path: Path, clip: Clip | None = None, **changes: Any) -> Path:
    """Write a clip of these properties; returns `path`."""
    clip = clip or Clip(**changes)
    width, height = clip.size
    with av.open(f"file:{path}", "w") as container:
        video = container.add_stream(clip.codec, rate=clip.rate)
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt = width, height, clip.pix_fmt
        context: Any = video.codec_context
        if clip.time_base is not None:
            context.time_base = clip.time_base
        for name, value in (
            ("colorspace", clip.matrix),
            ("color_primaries", clip.primaries),
            ("color_trc", clip.transfer),
            ("color_range", None if clip.full_range is None else 1 + clip.full_range),
            ("sample_aspect_ratio", clip.aspect),
        ):
            if value is not None:
                setattr(context, name, value)
        video.options = dict(clip.options)
        tracks = [_add_sound(container, sound) for sound in clip.sounds]
        written: Any = None
        if clip.subtitles:
            written = container.add_stream(
                {".mp4": "mov_text", ".webm": "webvtt"}.get(path.suffix, "srt")
            )
            written.codec_context.subtitle_header = _ASS
            written.codec_context.time_base = written.time_base = Fraction(1, 1000)
            written.metadata["language"] = "eng"
        if clip.chapters:
            container.set_chapters(
                [
                    {
                        "id": number,
                        "start": round(start * 1000),
                        "end": round(end * 1000),
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": title},
                    }
                    for number, (start, end, title) in enumerate(clip.chapters)
                ]
            )
        if clip.title:
            container.metadata["title"] = clip.title
        packets: list[av.Packet[Any]] = []
        for number in range(clip.frames):
            packets += video.encode(_frame(clip, number))
        packets += video.encode(None)
        for packet in packets:
            container.mux(packet)
        for stream, sound in zip(tracks, clip.sounds, strict=True):
            for packet in _tone(stream, sound, clip.frames / clip.rate):
                container.mux(packet)
        for start, end, text in clip.subtitles:
            container.mux(_subtitle(written, start, end, text))
    return path


def pictures_of(path: Path) -> list[av.VideoFrame]:
    with av.open(f"file:{path}") as container:
        return [f for f in container.decode(video=0) if isinstance(f, av.VideoFrame)]


def times_of(path: Path) -> list[float]:
    """When each picture is shown, in seconds."""
    return [round(float(f.time), 3) for f in pictures_of(path) if f.time is not None]


def colour_shown(path: Path, at: tuple[int, int] | None = None) -> tuple[int, int, int]:
    """The mean colour that a player makes of the first picture: by its tags, else by its size."""
    frame = pictures_of(path)[0]
    hd = int(frame.colorspace) == 1 or (
        int(frame.colorspace) == 2 and (frame.width >= 1280 or frame.height > 576)
    )
    kr, kb = (0.2126, 0.0722) if hd else (0.299, 0.114)
    planes: Any = frame.reformat(
        format="yuv444p",
        src_color_range=int(frame.color_range) or 1,
        dst_color_range=int(frame.color_range) or 1,
    ).to_ndarray()
    y, u, v = (float(p.mean()) for p in planes)
    if int(frame.color_range) == 2:
        y, u, v = y / 255, (u - 128) / 255, (v - 128) / 255
    else:
        y, u, v = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return round(255 * red), round(255 * green), round(255 * blue)


def turned(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write this turn into the picture track's header of an MP4, as phones do."""
    data = path.read_bytes()
    one, top = 0x10000, 0x40000000
    plain = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, top)
    at = data.index(plain, data.index(b"tkhd"))
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, top)
    path.write_bytes(data[:at] + matrix + data[at + 36 :])


def _add_sound(container: Any, sound: Sound) -> AudioStream:
    stream = container.add_stream(sound.codec, rate=sound.rate)
    assert isinstance(stream, AudioStream)
    stream.layout = sound.layout
    stream.bit_rate = 96_000
    if sound.language:
        stream.metadata["language"] = sound.language
    return stream


def _tone(stream: AudioStream, sound: Sound, seconds: Fraction) -> Iterator[av.Packet[Any]]:
    fifo = av.AudioFifo()
    resampler = av.AudioResampler(
        stream.codec_context.format.name, stream.codec_context.layout.name, sound.rate
    )
    count = int(seconds * sound.rate)
    wave = (8000 * np.sin(np.arange(count) * 2 * np.pi * sound.hz / sound.rate)).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = sound.rate, 0, Fraction(1, sound.rate)
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        fifo.write(part)
    step = stream.codec_context.frame_size or 1024
    while (piece := fifo.read(step)) or (piece := fifo.read(0, partial=True)):
        yield from stream.encode(piece)
    yield from stream.encode(None)


def _frame(clip: Clip, number: int) -> av.VideoFrame:
    width, height = clip.size
    picture = scene(0 if clip.still else number, width, height)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    level = 2 if clip.full_range else 1
    if "rgb" not in clip.pix_fmt and "gbr" not in clip.pix_fmt:
        matrix = clip.matrix if clip.matrix in (1, 5, 6, 9) else 6
        frame = frame.reformat(format=clip.pix_fmt, dst_colorspace=matrix, dst_color_range=level)
        if clip.matrix is not None:
            frame.colorspace = clip.matrix
        if clip.full_range is not None:
            frame.color_range = level
    if clip.pts is not None:
        frame.pts = clip.pts[number]
        frame.time_base = clip.time_base or 1 / clip.rate
    return frame


def _subtitle(stream: Any, start: float, end: float, text: str) -> av.Packet[Any]:
    from av.subtitles.subtitle import SubtitleSet

    line = f"0,0,Default,,0,0,0,,{text}".encode()
    shown = SubtitleSet.create(line, 0, round((end - start) * 1000))
    packet: av.Packet[Any] = stream.codec_context.encode_subtitle(shown)
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = round(start * 1000)
    packet.duration = round((end - start) * 1000)
    return packet


_ASS = (
    b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize, "
    b"PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, "
    b"StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, "
    b"MarginL, MarginR, MarginV, Encoding\r\nStyle: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,"
    b"0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1\r\n\r\n[Events]\r\nFormat: Layer, Start, End, Style, "
    b"Name, MarginL, MarginR, MarginV, Effect, Text\r\n"
)


def with_hdr10_plus(path: Path) -> None:
    """Puts HDR10+ data (SMPTE ST 2094-40, one window, nothing optional) before every picture of a
    bare HEVC bitstream."""
    bits = "10110101" + f"{0x3C:016b}{1:016b}{4:08b}{1:08b}"  # country, maker, kind, application
    bits += f"{1:02b}{1000:027b}0" + f"{500:017b}" * 4 + f"{0:04b}{1:010b}" + "000"
    payload = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8))
    message = bytes([0x4E, 0x01, 4, len(payload)]) + payload + b"\x80"
    escaped = bytearray()
    for byte in message:
        if byte <= 3 and escaped[-2:] == b"\0\0":
            escaped.append(3)
        escaped.append(byte)
    units = path.read_bytes().split(b"\0\0\1")
    out = units[0]
    for unit in units[1:]:
        kind = (unit[0] >> 1) & 0x3F
        if kind < 32 and unit[2] & 0x80:  # the first slice of a picture
            out += b"\0\0\1" + bytes(escaped)
        out += b"\0\0\1" + unit
    path.write_bytes(out)
