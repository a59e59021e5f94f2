"""A picture at another size: resampled plane by plane by FFmpeg, and laid in where aspects differ.

`engine/resample_torch.py` is its twin for pictures that are on a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from streamlift.frames import Colour, Plane, Planes
from streamlift.sizes import Box, Layout, Size

__all__ = ["Resampler"]

_LANCZOS = Interpolation.LANCZOS | Interpolation.ACCURATE_RND
"""Three lobes, widened where it shrinks. OpenCV's is not widened and takes six times as long; its
INTER_AREA, the only one that is, leaves fractions of pixels uneven."""
_FORMATS = {1: "gray", 2: "gray10le"}
"""By bytes of a sample."""


class Resampler:
    """Keeps FFmpeg's tables, one for each plane, while sizes stay the same; for one thread.

    Each plane is resampled about its centre, as is right for chroma in the middle of its 2x2 luma
    (see `engine/yuv.py`); edges are replicated.
    """

    def __init__(self) -> None:
        self._tables = tuple(VideoReformatter() for _ in range(3))

    def laid_out(self, planes: Planes, layout: Layout, colour: Colour) -> Planes:
        """The picture as `layout` has it: its shown part resampled into its place, the rest black.

        One that is in its place already comes back as it is, as views.
        """
        black, parts = colour.black, (layout, layout.halved(), layout.halved())
        y, u, v = (
            self._plane(number, plane, part, level)
            for number, (plane, part, level) in enumerate(
                zip(planes.each(), parts, black, strict=True)
            )
        )
        return Planes(y, u, v)

    def resized(
        self, planes: tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]], size: Size
    ) -> tuple[npt.NDArray[Any], ...]:
        """Planes of 8 bits, or of 10 bits as uint16, of a picture that is to be of `size`."""
        half = Size((size.width + 1) // 2, (size.height + 1) // 2)
        sizes = (size, half, half)
        return tuple(
            self._resized(number, plane, to)
            for number, (plane, to) in enumerate(zip(planes, sizes, strict=True))
        )

    def _plane(self, number: int, plane: Plane, layout: Layout, black: int) -> Plane:
        place, out = layout.place, layout.out
        part = self._resized(number, _view(plane, layout.shown), place.size)
        if place.size == out:
            return part
        whole = np.full((out.height, out.width), black, np.uint8)
        _view(whole, place)[:] = part
        return whole

    def _resized(self, number: int, plane: npt.NDArray[Any], size: Size) -> npt.NDArray[Any]:
        height, width = plane.shape
        if (width, height) == (size.width, size.height):
            return plane
        name = _FORMATS[plane.dtype.itemsize]
        frame = VideoFrame(width, height, name)
        _samples(frame, plane.dtype)[:] = plane
        # One thread: this is one of many streams. By itself FFmpeg would take all cores.
        made = self._tables[number].reformat(
            frame, size.width, size.height, name, interpolation=_LANCZOS, threads=1
        )
        return _samples(made, plane.dtype)


def _samples(frame: VideoFrame, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    """The frame's one plane (H, W), a view of its memory."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), dtype=kind)
    return rows.reshape(plane.height, plane.line_size // kind.itemsize)[:, : plane.width]


def _view(plane: Plane, box: Box) -> Plane:
    size = box.size
    return plane[box.top : box.top + size.height, box.left : box.left + size.width]
