"""Pictures of a file: planes of 8 or 10 bits with their time, made of decoded frames and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.video.stream import VideoStream

from streamlift.codec.resample import Resampler
from streamlift.frames import Size
from streamlift.offline.colour import ColourTags
from streamlift.offline.description import Turn

__all__ = ["Deinterlacer", "Picture", "Samples", "frame_of", "picture_of_frame", "resized"]

Samples = npt.NDArray[Any]
"""One plane (H, W): uint8, or uint16 with values of 10 bits."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """4:2:0 planes y (H, W), u and v (ceil(H/2), ceil(W/2)); `bits` 8 (uint8) or 10 (uint16).

    `time` and `duration` are in ticks of the source's time base; duration 0 is unknown.
    """

    y: Samples
    u: Samples
    v: Samples
    bits: int
    time: int
    duration: int = 0

    @property
    def size(self) -> Size:
        return Size(self.y.shape[1], self.y.shape[0])

    def with_planes(self, y: Samples, u: Samples, v: Samples) -> Picture:
        """The same moment with other planes."""
        return Picture(y, u, v, self.bits, self.time, self.duration)


def picture_of_frame(
    frame: av.VideoFrame, *, bits: int, tags: ColourTags, turn: Turn, time: int, duration: int
) -> Picture:
    """Planes of a decoded frame, upright, at `bits`, in the matrix and range that it has."""
    wanted = "yuv420p" if bits == 8 else "yuv420p10le"
    if frame.format.name not in (wanted, "yuvj420p" if bits == 8 else wanted):
        size = Size(frame.width, frame.height)
        # RGB has neither; limited range then, in the matrix of its size.
        level = 2 if tags.full_range else 1
        frame = frame.reformat(
            format=wanted,
            src_colorspace=None if tags.rgb else tags.matrix_of(size),
            dst_colorspace=tags.matrix_of(size),
            src_color_range=2 if tags.rgb else level,
            dst_color_range=level,
        )
    y, u, v = (np.ascontiguousarray(turn.apply(_view(p, bits))) for p in frame.planes[:3])
    return Picture(y, u, v, bits, time, duration)


def frame_of(picture: Picture, tags: ColourTags) -> av.VideoFrame:
    """A frame with these planes and tags, for an encoder or to be made RGB."""
    size = picture.size
    frame = av.VideoFrame(
        size.width, size.height, "yuv420p" if picture.bits == 8 else "yuv420p10le"
    )
    for plane, samples in zip(frame.planes, (picture.y, picture.u, picture.v), strict=True):
        _view(plane, picture.bits)[:] = samples
    frame.colorspace = tags.matrix_of(size)
    frame.color_range = 2 if tags.full_range else 1
    frame.color_primaries = tags.primaries
    frame.color_trc = tags.transfer
    return frame


def resized(picture: Picture, size: Size, resampler: Resampler) -> Picture:
    """The picture at another size."""
    if picture.size == size:
        return picture
    return picture.with_planes(*resampler.resized((picture.y, picture.u, picture.v), size))


class Deinterlacer:
    """Passes frames as they are until one is interlaced; from then on through bwdif.

    It keeps the rate and leaves progressive pictures untouched.
    """

    def __init__(self, video: VideoStream) -> None:
        self._video = video
        self._graph: Graph | None = None
        self._form: tuple[int, int, str] | None = None
        self.used = False

    def push(self, frame: av.VideoFrame) -> list[av.VideoFrame]:
        form = (frame.width, frame.height, frame.format.name)
        done = []
        if self._graph is not None and form != self._form:
            done = self.finish()
        if self._graph is None:
            if not frame.interlaced_frame:
                return [*done, frame]
            self._open(frame)
            self._form = form
        assert self._graph is not None
        self._graph.push(frame)
        return [*done, *self._ready()]

    def finish(self) -> list[av.VideoFrame]:
        if self._graph is None:
            return []
        self._graph.push(None)
        done = self._ready()
        self._graph = None
        return done

    def _open(self, frame: av.VideoFrame) -> None:
        self.used = True
        graph = Graph()
        source = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            name="in",
            time_base=self._video.time_base,
        )
        bwdif = graph.add("bwdif", "mode=send_frame:deint=interlaced")
        sink = graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        graph.configure()
        self._graph = graph

    def _ready(self) -> list[av.VideoFrame]:
        assert self._graph is not None
        done: list[av.VideoFrame] = []
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return done
            assert isinstance(frame, av.VideoFrame)
            done.append(frame)


def _view(plane: Any, bits: int) -> Samples:
    """A plane's samples (H, W), a view of the frame's memory."""
    kind, wide = (np.uint8, 1) if bits == 8 else (np.uint16, 2)
    rows = np.frombuffer(memoryview(plane), dtype=kind)
    return rows.reshape(plane.height, plane.line_size // wide)[:, : plane.width]
