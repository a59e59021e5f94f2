"""What a source is, read whole before the writer opens: picture, colour, times, tracks, titles."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy.typing as npt
from av.container import InputContainer
from av.video.stream import VideoStream

from streamlift.errors import MediaError
from streamlift.frames import Size
from streamlift.offline.colour import UNSPECIFIED, ColourTags
from streamlift.offline.names import url
from streamlift.offline.siting import chroma_siting
from streamlift.offline.steps import TAKEN, shown, step, why

__all__ = ["Description", "Light", "Turn", "describe", "main_video", "opened"]

_LOOK_AT = 400
"""Packets of picture looked at for the first one that decodes."""

_UNKEPT = {
    "DYNAMIC_HDR_PLUS": "the HDR10+ data of every picture",
    "DYNAMIC_HDR_VIVID": "the HDR Vivid data of every picture",
    "AMBIENT_VIEWING_ENVIRONMENT": "the light of the room that HDR was graded for",
    "SPHERICAL": "the mark of a 360 degree video",
    "STEREO3D": "the mark of a stereoscopic video",
    "S12M_TIMECODE": "the time code inside the picture",
}
"""What FFmpeg exports with a picture, by its name there."""

_FREE_CLOCKS = ("mpegts", "mpeg", "flv", "asf", "rm", "live_flv")
"""Forms whose clock begins anywhere and may jump."""


@dataclass(frozen=True, slots=True)
class Turn:
    """How the stored picture is turned to stand upright: transposed first, then mirrored."""

    transpose: bool = False
    mirror: bool = False
    flip: bool = False

    @classmethod
    def of_matrix(cls, matrix: bytes) -> Turn | None:
        """From FFmpeg's display matrix, nine int32; None for an angle between the quarters."""
        a, b, _, c, d, _, *_ = struct.unpack("=9i", matrix[:36])
        if b == c == 0 and a and d:
            return cls(False, a < 0, d < 0)
        if a == d == 0 and b and c:
            return cls(True, c < 0, b < 0)
        return None

    @classmethod
    def of_orientation(cls, value: int) -> Turn:
        """From EXIF's orientation, 1 to 8."""
        return _ORIENTATIONS.get(value, cls())

    def apply(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(H, W, ...) turned, a view where that is enough."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        if self.mirror:
            pixels = pixels[:, ::-1]
        return pixels[::-1] if self.flip else pixels

    def size(self, size: Size) -> Size:
        return Size(size.height, size.width) if self.transpose else size


_ORIENTATIONS = {
    2: Turn(False, True, False),
    3: Turn(False, True, True),
    4: Turn(False, False, True),
    5: Turn(True, False, False),
    6: Turn(True, True, False),
    7: Turn(True, True, True),
    8: Turn(True, False, True),
}


@dataclass(frozen=True, slots=True)
class Light:
    """HDR10's static values, as encoders take them.

    mastering: the display's chromaticities in 1/50000 (G, B, R, white) and most and least light in
    1/10000 cd/m2. brightest: largest and mean light level of the content, cd/m2.
    """

    mastering: tuple[int, ...] | None = None
    brightest: tuple[int, int] | None = None

    def x265(self) -> str | None:
        """As x264 and x265 write it; None without."""
        if self.mastering is None:
            return None
        return _MASTERING.format(*self.mastering)

    def svt(self) -> str | None:
        """As SVT-AV1 writes it, in whole units."""
        if self.mastering is None:
            return None
        *places, most, least = self.mastering
        values = [f"{p / 50000:.5f}" for p in places]
        return _MASTERING.format(*values, f"{most / 10000:.4f}", f"{least / 10000:.4f}")


_MASTERING = "G({},{})B({},{})R({},{})WP({},{})L({},{})"


@dataclass(frozen=True, slots=True)
class Description:
    """All that a file says of itself. `size` is as stored; `upright` as shown."""

    size: Size
    turn: Turn
    odd_angle: bool
    pixel_aspect: Fraction
    """As stored: width of a pixel over its height."""
    colour: ColourTags
    bits: int
    subsampling: str
    """420, 422, 440, 444, ..., or grey."""
    alpha: bool
    interlaced: bool
    light: Light
    dolby_vision: bool
    captions: bool
    time_base: Fraction
    rate: Fraction | None
    start_s: Fraction
    """The earliest time of any track."""
    free_clock: bool
    pictures: int | None
    """How many the file's index promises."""
    duration_s: float | None
    """How long it promises to be."""
    title: Mapping[str, str] = field(default_factory=dict)
    unkept: tuple[str, ...] = ()
    """What the first picture says besides, and no result does; words for a warning."""
    siting: str | None = None
    """Where chroma samples lie, as FFmpeg names it: left, topleft, ...; None where not said."""
    begins: int | None = None
    """When the first picture is shown, in ticks, where its own packet does not say it."""
    grid: Fraction | None = None
    """Ticks a second that hold the time of every picture, where the file's times suggest one."""

    @property
    def upright(self) -> Size:
        return self.turn.size(self.size)

    @property
    def upright_aspect(self) -> Fraction:
        return 1 / self.pixel_aspect if self.turn.transpose else self.pixel_aspect

    @property
    def expected(self) -> int | None:
        """Pictures in all, promised or reckoned from duration and rate."""
        if self.pictures:
            return self.pictures
        if self.duration_s and self.rate:
            return max(1, round(self.duration_s * self.rate))
        return None


@contextmanager
def opened(source: Path) -> Iterator[InputContainer]:
    """The source for reading. Raises MediaError that says why it cannot be read."""
    try:
        container = av.open(url(source), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(
            f"reading {shown(source)}: {_unopened(source, error)}; expected {TAKEN}",
            found=str(source),
            expected=TAKEN,
        ) from error
    with container:
        if not any(_is_picture(s) for s in container.streams.video):
            raise MediaError(
                f"reading {shown(source)}: it holds no video; expected {TAKEN}",
                found=str(source),
                expected=TAKEN,
            )
        yield container


def main_video(container: InputContainer) -> VideoStream:
    """The track that is upscaled: the first that is no cover picture, the default one if marked."""
    pictures = [s for s in container.streams.video if _is_picture(s)]
    marked = [s for s in pictures if s.disposition & av.stream.Disposition.default]
    return (marked or pictures)[0]


def describe(source: Path) -> Description:
    """Read the source's description; it is opened and closed. Raises MediaError."""
    with opened(source) as container:
        video = main_video(container)
        with step("reading", source):
            frame = _first_picture(container, video)
        if frame is None:
            raise MediaError(
                f"reading {shown(source)}: no picture in it can be decoded", found=str(source)
            )
        begins = None if frame.pts is not None else _first_time(source, video)
        return _describe(container, video, frame, begins)


def _first_time(source: Path, video: VideoStream) -> int | None:
    """Counted back from the first packet with a time, as many usual durations as lack one."""
    rate, base, untimed = _rate(video), video.time_base, 0
    with opened(source) as again, step("reading", source):
        for packet in again.demux(again.streams[video.index]):
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None and base is not None:
                return time - round(untimed / ((rate or Fraction(25)) * base))
            untimed += 1
            if untimed > _LOOK_AT:
                break
    return None


def _describe(
    container: InputContainer, video: VideoStream, frame: av.VideoFrame, begins: int | None
) -> Description:
    context, side = video.codec_context, _side_data(frame)
    turn = Turn.of_matrix(side["DISPLAYMATRIX"]) if "DISPLAYMATRIX" in side else Turn()
    starts = [
        s.start_time * s.time_base
        for s in (video, *container.streams.audio)
        if s.start_time is not None and s.time_base is not None
    ]
    if begins is not None and video.time_base is not None:
        starts.append(begins * video.time_base)
    form = container.format.name
    size = Size(frame.width, frame.height)
    return Description(
        size=size,
        turn=turn or Turn(),
        odd_angle=turn is None,
        pixel_aspect=Fraction(video.sample_aspect_ratio or context.sample_aspect_ratio or 1),
        colour=_colour(frame, context),
        bits=max(c.bits for c in frame.format.components),
        subsampling=_subsampling(frame),
        # FFmpeg's own VP8 and VP9 decoders leave the alpha layer of a WebM aside.
        alpha=_has_alpha(frame.format.name) or video.metadata.get("alpha_mode") == "1",
        interlaced=frame.interlaced_frame or int(context.field_order) > 1,
        light=_light(side),
        dolby_vision="DOVI_METADATA" in side or "DOVI_RPU_BUFFER" in side,
        captions="A53_CC" in side,
        unkept=tuple(words for name, words in _UNKEPT.items() if name in side),
        siting=chroma_siting(frame),
        time_base=video.time_base or Fraction(1, 90000),
        rate=_rate(video),
        grid=None if video.guessed_rate is None else Fraction(video.guessed_rate),
        start_s=min(starts, default=Fraction(0)),
        begins=begins,
        free_clock=any(name in _FREE_CLOCKS for name in form.split(",")),
        pictures=_promised(container, video),
        duration_s=None if container.duration is None else container.duration / av.time_base,
        title=dict(container.metadata),
    )


def _first_picture(container: InputContainer, video: VideoStream) -> av.VideoFrame | None:
    video.thread_type = "NONE"
    failures = 0
    for number, packet in enumerate(container.demux(video)):
        try:
            for frame in packet.decode():
                assert isinstance(frame, av.VideoFrame)
                return frame
        except av.FFmpegError:
            failures += 1
        if number > _LOOK_AT:
            break
    return None


def _promised(container: InputContainer, video: VideoStream) -> int | None:
    """How many pictures the index lists, where a form has one at its front or end."""
    if "mp4" in container.format.name.split(","):
        # After edit lists: what they cut away is not expected.
        return len(video.index_entries) or None
    return None


def _is_picture(stream: VideoStream) -> bool:
    return not stream.disposition & av.stream.Disposition.attached_pic


def _rate(video: VideoStream) -> Fraction | None:
    for rate in (video.average_rate, video.guessed_rate, video.base_rate):
        if rate is not None and Fraction(1, 10) <= rate <= 1000:
            return Fraction(rate)
    return None


def _colour(frame: av.VideoFrame, context: Any) -> ColourTags:
    name = frame.format.name
    rgb = any(part in name for part in ("rgb", "bgr", "gbr", "pal8", "0rgb"))
    ranges = [int(r) for r in (frame.color_range, context.color_range) if int(r)]
    full = ranges[0] == 2 if ranges else (True if name.startswith("yuvj") else None)
    return ColourTags(
        matrix=_tag(frame.colorspace, context.colorspace),
        primaries=_tag(frame.color_primaries, context.color_primaries),
        transfer=_tag(frame.color_trc, context.color_trc),
        full_range=None if rgb else full,
        rgb=rgb,
    )


def _tag(of_frame: int, of_context: int) -> int:
    found = [int(t) for t in (of_frame, of_context) if int(t) != UNSPECIFIED]
    return found[0] if found else UNSPECIFIED


def _subsampling(frame: av.VideoFrame) -> str:
    planes = len(frame.format.components)
    if planes < 3:
        return "grey"
    if frame.format.name.startswith("yuv") and frame.format.name[3:6].isdigit():
        return frame.format.name[3:6]
    wide, high = frame.format.chroma_width(frame.width), frame.format.chroma_height(frame.height)
    if wide == frame.width:
        return "444"
    return "422" if high == frame.height else "420"


def _has_alpha(name: str) -> bool:
    return name.startswith(("yuva", "gbrap", "ya8", "ya16")) or any(
        part in name for part in ("rgba", "bgra", "argb", "abgr")
    )


def _side_data(frame: av.VideoFrame) -> dict[str, bytes]:
    side: Any = frame.side_data
    items = [side[number] for number in range(len(side))]
    return {item.type.name: bytes(item) for item in items}


def _light(side: Mapping[str, bytes]) -> Light:
    mastering: tuple[int, ...] | None = None
    brightest: tuple[int, int] | None = None
    raw = side.get("MASTERING_DISPLAY_METADATA", b"")
    if len(raw) >= 88:
        # AVMasteringDisplayMetadata: R, G, B and white point as rationals, then least and most.
        *ratios, has_primaries, has_luminance = struct.unpack("=20i2i", raw[:88])
        halves = zip(ratios[::2], ratios[1::2], strict=True)
        pairs = [Fraction(n, d) if d else Fraction(0) for n, d in halves]
        if has_primaries and has_luminance:
            x = [round(p * 50000) for p in pairs[:8]]
            least, most = (round(p * 10000) for p in pairs[8:])
            mastering = (*x[2:6], *x[0:2], *x[6:8], most, least)
    raw = side.get("CONTENT_LIGHT_LEVEL", b"")
    if len(raw) >= 8:
        most_level, mean_level = struct.unpack("=2I", raw[:8])
        brightest = (most_level, mean_level)
    return Light(mastering, brightest)


def _unopened(source: Path, error: Exception) -> str:
    if isinstance(error, av.InvalidDataError) and source.is_file():
        with source.open("rb") as file:
            head = file.read(64)
        if source.stat().st_size == 0:
            return "the file is empty"
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
            return (
                "it is an MP4 whose index is missing: the recording or the download was cut off "
                "before its end"
            )
        return "it is no video or image of a known form"
    return why(error)
