"""What each kind of target holds: containers by suffix, their codecs, and the encoders for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.codeccontext import VideoCodecContext

from streamlift.errors import ConfigError, MediaError
from streamlift.frames import Size
from streamlift.offline.steps import shown

__all__ = [
    "ANIMATIONS",
    "CONTAINERS",
    "IMAGES",
    "LARGEST_SIDE",
    "Container",
    "Encoding",
    "VideoCodec",
    "check_opens",
    "choose_encoding",
    "container_of",
    "even",
    "is_image",
    "quiet",
]

LARGEST_SIDE = 16384

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".jp2")
ANIMATIONS = {".gif": "gif", ".apng": "apng", ".webp": "webp"}


@dataclass(frozen=True, slots=True)
class Container:
    """One form of video file. The first codec of a kind is the one taken unasked."""

    form: str
    codecs: tuple[str, ...]
    sound: str
    subtitles: str | None = None
    chapters: bool = False
    attachments: bool = False
    reorders: bool = True
    """Whether pictures may be stored in another order than shown (B-frames)."""
    even_times: bool = False
    """Whether every picture takes as long as every other."""


_MP4 = Container("mp4", ("h264", "hevc", "av1"), "aac", "mov_text", chapters=True)
_TS = Container("mpegts", ("h264", "hevc"), "aac")

CONTAINERS: Mapping[str, Container] = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Container("mov", ("h264", "hevc", "av1"), "aac", "mov_text", chapters=True),
    ".mkv": Container(
        "matroska", ("h264", "hevc", "av1", "vp9"), "aac", "srt", chapters=True, attachments=True
    ),
    ".webm": Container("webm", ("vp9", "av1"), "libopus", "webvtt", chapters=True),
    ".ts": _TS,
    ".m2ts": _TS,
    ".mts": _TS,
    ".avi": Container("avi", ("h264",), "libmp3lame", reorders=False, even_times=True),
    ".flv": Container("flv", ("h264",), "aac"),
}


@dataclass(frozen=True, slots=True)
class VideoCodec:
    """An encoder in software, its scale of quality, and what it can take."""

    encoder: str
    crf: int
    worst_crf: int
    options: Mapping[str, str]
    deep: bool
    odd: bool
    hardware: tuple[str, ...]


_HARDWARE = ("nvenc", "qsv", "amf", "videotoolbox", "vaapi", "v4l2m2m")
CODECS: Mapping[str, VideoCodec] = {
    # With macroblock trees, `superfast` gives the files of `veryfast` for half its time.
    "h264": VideoCodec(
        "libx264",
        14,
        51,
        {"preset": "superfast", "x264-params": "mbtree=1:rc-lookahead=10"},
        True,
        False,
        _HARDWARE,
    ),
    "hevc": VideoCodec("libx265", 16, 51, {"preset": "veryfast"}, True, False, _HARDWARE),
    "av1": VideoCodec("libsvtav1", 20, 63, {"preset": "8"}, True, False, _HARDWARE[:5]),
    "vp9": VideoCodec(
        "libvpx-vp9", 18, 63, {"deadline": "good", "cpu-used": "4", "row-mt": "1"}, False, True, ()
    ),
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """A chosen encoder: FFmpeg's name, options, pixel format, and whether it takes odd sides."""

    codec: str
    encoder: str
    options: Mapping[str, str]
    bits: int
    odd: bool
    crf: int

    @property
    def form(self) -> str:
        return "yuv420p" if self.bits == 8 else "yuv420p10le"


def is_image(target: Path) -> bool:
    return target.suffix.lower() in IMAGES


def container_of(target: Path) -> Container:
    """By the suffix. Raises MediaError that names those known."""
    container = CONTAINERS.get(target.suffix.lower())
    if container is None:
        known = ", ".join((*CONTAINERS, ".gif", ".apng", *IMAGES))
        ending = f"no {target.suffix} files" if target.suffix else "no files without a suffix"
        raise MediaError(
            f"cannot write {shown(target)}: {ending} are made; expected one of {known}",
            found=target.suffix,
        )
    return container


def choose_encoding(
    target: Path, *, codec: str | None, crf: int | None, bits: int, hardware: bool
) -> tuple[Encoding, str | None]:
    """The encoder for a target, and a line to say if it is not the one that was asked for.

    Raises ConfigError for a codec that the container cannot hold, or a `crf` out of its range.
    """
    container = container_of(target)
    name = codec or _default_codec(container, bits)
    if name not in container.codecs:
        raise ConfigError(
            f"{target.suffix} files hold no {name}; expected one of {', '.join(container.codecs)}",
            found=name,
        )
    kind = CODECS[name]
    if kind.encoder not in av.codecs_available:
        raise ConfigError(f"this FFmpeg has no {kind.encoder} to make {name}", found=name)
    quality = kind.crf if crf is None else crf
    if not 0 <= quality <= kind.worst_crf:
        raise ConfigError(
            f"--crf {quality}: {name} takes 0 (best) to {kind.worst_crf}", found=quality
        )
    depth = bits if kind.deep else 8
    if hardware:
        found = _hardware(name, kind, depth, quality)
        if found is not None:
            return found, None
    line = f"no hardware encoder of {name} opens here; {kind.encoder} is used" if hardware else None
    options = {**kind.options, "crf": str(quality)}
    return Encoding(name, kind.encoder, options, depth, kind.odd, quality), line


def check_opens(encoding: Encoding, size: Size, target: Path) -> None:
    """Open the encoder once before any work. Raises MediaError that names the size."""
    for side in (size.width, size.height):
        if side > LARGEST_SIDE:
            raise MediaError(
                f"writing {shown(target)}: the result would be {size}, and no side of a video may "
                f"be over {LARGEST_SIDE}; use a smaller --scale or --size",
                found=str(size),
            )
    try:
        _open(encoding.encoder, size, encoding.form, {})
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(
            f"encoding {shown(target)}: {encoding.encoder} takes no pictures of {size}; "
            "choose another --codec, --size or kind of target",
            found=str(size),
        ) from error


def _default_codec(container: Container, bits: int) -> str:
    """What players know best; with 10 bits, that is HEVC or AV1."""
    if bits == 8:
        return container.codecs[0]
    return next((c for c in ("hevc", "av1") if c in container.codecs), container.codecs[0])


def _hardware(name: str, kind: VideoCodec, bits: int, quality: int) -> Encoding | None:
    for maker in kind.hardware:
        encoder = f"{name}_{maker}"
        if encoder not in av.codecs_available:
            continue
        options = _QUALITY_OF.get(maker, "global_quality")
        encoding = Encoding(name, encoder, {options: str(max(1, quality))}, bits, False, quality)
        try:
            context = _open(encoder, Size(256, 256), encoding.form, encoding.options)
            context.encode(av.VideoFrame(256, 256, encoding.form))
        except (av.FFmpegError, ValueError):
            continue
        return encoding
    return None


_QUALITY_OF = {"nvenc": "cq", "qsv": "global_quality", "amf": "qp_i", "videotoolbox": "q"}


def _open(encoder: str, size: Size, form: str, options: Mapping[str, str]) -> VideoCodecContext:
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = size.width, size.height, form
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    context.options = {**options, **quiet(encoder)}
    context.open()
    return context


def even(size: Size) -> Size:
    """With one more column or row where a side is odd."""
    return Size(size.width + size.width % 2, size.height + size.height % 2)


def quiet(encoder: str) -> dict[str, str]:
    """Options that keep an encoder from writing to the terminal; SVT-AV1 hears only a variable."""
    if encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")
    return {"x265-params": "log-level=none"} if encoder == "libx265" else {}
