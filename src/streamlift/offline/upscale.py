"""Upscaling files: any video or image that PyAV opens, audio copied, memory flat."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from streamlift.clock import VIDEO_CLOCK_HZ, Clock, MonotonicClock
from streamlift.codec.decoder import colour_of, picture_of
from streamlift.engine.chain import UpscaleChain, Upscaled
from streamlift.errors import MediaError
from streamlift.frames import Colour, Frame, Plane, Planes, Size, Stabilise
from streamlift.upscalers import Upscaler

__all__ = ["Progress", "upscale_file"]

_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_TIME_BASE = Fraction(1, VIDEO_CLOCK_HZ)
_DEFAULT_FPS = 25
_MATRICES = {"bt601": 6, "bt709": 1, "bt2020": 9}  # ITU-T H.273


@dataclass(frozen=True, slots=True)
class Progress:
    """Frames done, frames in all if the file says so, and frames a second so far."""

    done: int
    total: int | None
    fps: float

    @property
    def left_s(self) -> float | None:
        if self.total is None or self.fps == 0:
            return None
        return max(0, self.total - self.done) / self.fps


def upscale_file(
    source: Path,
    target: Path,
    upscaler: Upscaler,
    *,
    device: str = "cpu",
    stabilise: Stabilise = Stabilise.OFF,
    crf: int = 14,
    progress: Callable[[Progress], None] | None = None,
    clock: Clock | None = None,
) -> int:
    """Upscale `source` into `target`; returns the number of pictures written.

    `source`: a video, an image, or a numbered sequence such as `in/%04d.png`. `target`: a video by
    its suffix, an image, or a numbered sequence; audio of a video is copied into a video. The
    target appears whole or not at all (a sequence: picture by picture). `crf` is libx264's quality,
    0 (lossless) to 51. Raises MediaError when a file cannot be read or written, UpscaleError when
    the model fails.
    """
    time = clock or MonotonicClock()
    chain = UpscaleChain(upscaler, device, stabilise, clock=time)
    with _reading(source) as container:
        video = container.streams.video[0]
        total = video.frames or _estimate(video)
        if _is_image(target):
            writing = _ImageWriter(target)
            written = _run(container, chain, writing, total, progress, time)
        else:
            with _replacing(target) as part, _writing(part, target) as output:
                writer = _VideoWriter(output, container, upscaler.spec.scale, crf)
                written = _run(container, chain, writer, total, progress, time)
    if written == 0:
        raise MediaError(f"{source} holds no picture", found=0, expected="at least one frame")
    return written


class _Writer(Protocol):
    def picture(self, upscaled: Upscaled) -> None: ...

    def audio(self, packet: av.Packet[Any]) -> None: ...

    def finish(self) -> None: ...


def _run(
    container: InputContainer,
    chain: UpscaleChain,
    writer: _Writer,
    total: int | None,
    progress: Callable[[Progress], None] | None,
    clock: Clock,
) -> int:
    started_s, written = clock.now_s(), 0

    def put(outputs: Iterator[Upscaled]) -> int:
        count = 0
        for output in outputs:
            writer.picture(output)
            count += 1
        return count

    for item in _read(container):
        if isinstance(item, av.Packet):
            writer.audio(item)
            continue
        written += put(chain.push(item))
        if progress is not None:
            taken_s = clock.now_s() - started_s
            progress(Progress(written, total, written / taken_s if taken_s else 0.0))
    written += put(chain.finish())
    writer.finish()
    if progress is not None:
        progress(Progress(written, written, written / max(1e-9, clock.now_s() - started_s)))
    return written


def _read(container: InputContainer) -> Iterator[Frame | av.Packet[Any]]:
    """Pictures as frames, audio as packets, in file order; pts never goes back."""
    video = container.streams.video[0]
    video.thread_type = "AUTO"
    audio = container.streams.audio[0] if container.streams.audio else None
    last_pts = -1
    for packet in container.demux(*(s for s in (video, audio) if s is not None)):
        if packet.stream is audio:
            if packet.dts is not None:
                yield packet
            continue
        for decoded in packet.decode():
            assert isinstance(decoded, av.VideoFrame)
            last_pts = max(last_pts + 1, _pts_of(decoded, video, last_pts))
            yuv = decoded
            if decoded.format.name not in ("yuv420p", "yuvj420p"):
                yuv = decoded.reformat(format="yuv420p", dst_colorspace=_matrix_of(decoded))
            yield Frame(
                pts=last_pts,
                size=Size(yuv.width, yuv.height),
                planes=picture_of(yuv),
                colour=colour_of(decoded),
                arrived_s=0.0,
            )


def _pts_of(decoded: av.VideoFrame, video: VideoStream, last_pts: int) -> int:
    if decoded.pts is None or decoded.time_base is None:
        rate = video.average_rate or _DEFAULT_FPS
        return last_pts + round(VIDEO_CLOCK_HZ / rate) if last_pts >= 0 else 0
    return int(decoded.pts * decoded.time_base * VIDEO_CLOCK_HZ)


def _matrix_of(decoded: av.VideoFrame) -> int | None:
    # RGB has no matrix yet: images become BT.601, what the rest of the service assumes.
    return _MATRICES["bt601"] if "rgb" in decoded.format.name else None


class _VideoWriter:
    """H.264 at constant quality; the source's audio goes along untouched."""

    def __init__(
        self, output: OutputContainer, source: InputContainer, scale: int, crf: int
    ) -> None:
        video = source.streams.video[0]
        self._output = output
        self._stream = output.add_stream("libx264", rate=video.average_rate or _DEFAULT_FPS)
        self._stream.width = video.width * scale
        self._stream.height = video.height * scale
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = _TIME_BASE
        self._stream.options = {"crf": str(crf), "preset": "veryfast"}
        self._audio: AudioStream | None = None
        if source.streams.audio:
            self._audio = output.add_stream_from_template(source.streams.audio[0])
        self._size = Size(self._stream.width, self._stream.height)
        self._colour: Colour | None = None

    def picture(self, upscaled: Upscaled) -> None:
        planes = upscaled.planes
        if planes.size != self._size:
            raise MediaError(
                "the picture size changes in mid-file, which one video stream cannot hold",
                found=str(planes.size),
                expected=str(self._size),
            )
        if self._colour is None:
            self._colour = upscaled.frame.colour
            context = self._stream.codec_context
            context.colorspace = _MATRICES.get(self._colour.matrix, _MATRICES["bt601"])
            context.color_range = 2 if self._colour.full_range else 1
        frame = _av_frame(planes)
        frame.pts = upscaled.frame.pts
        frame.time_base = _TIME_BASE
        self._output.mux(self._stream.encode(frame))

    def audio(self, packet: av.Packet[Any]) -> None:
        if self._audio is not None:
            packet.stream = self._audio
            self._output.mux(packet)

    def finish(self) -> None:
        self._output.mux(self._stream.encode(None))


class _ImageWriter:
    """One image, or a numbered sequence; each file appears whole."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._numbered = "%" in target.name
        self._count = 0

    def picture(self, upscaled: Upscaled) -> None:
        if self._count and not self._numbered:
            raise MediaError(
                "the source holds several pictures; give a numbered target",
                found=self._target.name,
                expected="such as out/%05d.png, or a video",
            )
        self._count += 1
        path = self._target
        if self._numbered:
            path = path.with_name(path.name % self._count)
        encoded, data = cv2.imencode(path.suffix, _bgr_of(upscaled))
        if not encoded:
            raise MediaError(f"cannot save {path.name} as {path.suffix}")
        with _replacing(path) as part:
            part.write_bytes(data.tobytes())

    def audio(self, packet: av.Packet[Any]) -> None:
        """Pictures carry no sound."""

    def finish(self) -> None:
        """Every picture is on disk already."""


@contextmanager
def _reading(source: Path) -> Iterator[InputContainer]:
    try:
        container = av.open(str(source))
    except (OSError, av.FFmpegError, ValueError) as error:
        expected = "a video, an image or numbered images"
        raise MediaError(
            f"cannot read {source}: {error}; expected {expected}",
            found=str(source),
            expected=expected,
        ) from error
    with container:
        if not container.streams.video:
            raise MediaError(f"{source} holds no video", found=str(source), expected="a video")
        try:
            yield container
        except av.FFmpegError as error:
            raise MediaError(f"{source}: {error}", found=str(source)) from error


@contextmanager
def _writing(part: Path, target: Path) -> Iterator[OutputContainer]:
    suffix = target.suffix.lstrip(".").lower()
    try:
        output = av.open(str(part), "w", format={"mkv": "matroska"}.get(suffix, suffix))
    except (OSError, av.FFmpegError, ValueError) as error:
        raise MediaError(
            f"cannot write {target}: {error}",
            found=target.suffix,
            expected=".mp4, .mkv, .mov, .png, .jpg or a numbered sequence",
        ) from error
    with output:
        yield output


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A path beside `target` that becomes it at the end, or is removed on failure."""
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, target)
    except OSError as error:
        raise MediaError(f"cannot write {target}: {error.strerror}", found=str(target)) from error
    finally:
        part.unlink(missing_ok=True)


def _estimate(video: VideoStream) -> int | None:
    if video.duration is None or video.time_base is None or not video.average_rate:
        return None
    return round(video.duration * video.time_base * video.average_rate)


def _is_image(target: Path) -> bool:
    return target.suffix.lower() in _IMAGES


def _av_frame(planes: Planes) -> av.VideoFrame:
    frame = av.VideoFrame(planes.size.width, planes.size.height, "yuv420p")
    for plane, view in zip((planes.y, planes.u, planes.v), picture_of(frame).each(), strict=True):
        view[:] = plane
    return frame


def _bgr_of(upscaled: Upscaled) -> Plane:
    """(H, W, 3) BGR for saving; honours the matrix and range."""
    colour = upscaled.frame.colour
    frame = _av_frame(upscaled.planes)
    frame.colorspace = _MATRICES.get(colour.matrix, _MATRICES["bt601"])
    frame.color_range = 2 if colour.full_range else 1
    return np.ascontiguousarray(frame.to_ndarray(format="bgr24"))
