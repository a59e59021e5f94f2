"""From pictures of a file to enlarged ones: the chain of 8 bits, alone or side by side; 10 bits.

Models of planes know 8 bits. A deeper picture is split: the model enlarges its upper 8 bits, what
is left below them (0 to 3 of 4 steps) is enlarged bicubically and added. Bicubic itself and models
of RGB compute with all 10 bits.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import cv2
import numpy as np

from streamlift.clock import VIDEO_CLOCK_HZ, Clock
from streamlift.engine.chain import UpscaleChain
from streamlift.engine.cuts import Cuts
from streamlift.engine.devices import free_memory
from streamlift.engine.padding import padded_size
from streamlift.errors import ConfigError, UpscaleError
from streamlift.frames import Colour, Frame, Planes, Size, Stabilise
from streamlift.offline.description import Description
from streamlift.offline.pictures import Picture, Samples
from streamlift.offline.pooled import Pooled
from streamlift.upscalers import Upscaler
from streamlift.upscalers.base import Batches, OnCut, Pixels

__all__ = ["Enlarger", "open_enlarger", "several_at_a_time"]

_SIDE_BY_SIDE = ("bicubic", "compact")
"""Models that remember nothing between pictures and run on processor threads of their own."""


_BATCH = 4
"""Pictures at a time on a GPU: enough to fill one with the smallest of a net's layers."""


class Enlarger(Protocol):
    """One source's way through one model: as many pictures out as in, in order."""

    def push(self, picture: Picture) -> Iterator[Picture]: ...

    def finish(self) -> Iterator[Picture]: ...

    def close(self) -> None: ...


def open_enlarger(
    upscaler: Upscaler,
    device: str,
    about: Description,
    bits: int,
    *,
    stabilise: Stabilise,
    clock: Clock,
    workers: int | None = None,
) -> Enlarger:
    """The right one for this source. Raises ConfigError for what the model cannot keep."""
    colour = about.colour.model_colour(about.size)
    upscaler = several_at_a_time(upscaler, about.size, free_memory(device))
    spec = upscaler.spec
    if spec.pixels is Pixels.RGB and not about.colour.convertible(about.size):
        raise ConfigError(
            f"{spec.name} works on RGB, which cannot be made of this clip's colour matrix "
            f"({about.colour.matrix} of H.273); --backend bicubic keeps it",
            found=about.colour.matrix,
        )
    if bits > 8:
        if stabilise is not Stabilise.OFF:
            raise ConfigError(
                "--stabilise works on 8 bits, and this clip has 10; leave it off", found=bits
            )
        return _Deep(upscaler, device, colour, clock)
    count = workers or _cores()
    if spec.name in _SIDE_BY_SIDE and count > 1:
        pooled = Pooled(upscaler, count)
        return _Shallow(pooled, device, colour, stabilise, clock, about, close=pooled.close)
    return _Shallow(upscaler, device, colour, stabilise, clock, about)


class _Shallow:
    """8 bits: one chain, whether its session computes here or beside.

    The chain alone decides order, time, padding and what the stabiliser sees, so that a picture
    does not depend on how many threads there are. Every output finds its picture by order.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        device: str,
        colour: Colour,
        stabilise: Stabilise,
        clock: Clock,
        about: Description,
        *,
        close: Callable[[], None] | None = None,
    ) -> None:
        self._chain = UpscaleChain(upscaler, device, stabilise, clock=clock)
        self._colour, self._close = colour, close
        self._owed: deque[Picture] = deque()
        self._ticks = about.time_base * VIDEO_CLOCK_HZ

    def push(self, picture: Picture) -> Iterator[Picture]:
        self._owed.append(picture)
        pts = round(picture.time * self._ticks)
        for done in self._chain.push(_frame(picture, self._colour, pts)):
            yield _with(self._owed.popleft(), done.planes)

    def finish(self) -> Iterator[Picture]:
        for done in self._chain.finish():
            yield _with(self._owed.popleft(), done.planes)

    def close(self) -> None:
        if self._close is not None:
            self._close()


class _Deep:
    """10 bits."""

    def __init__(self, upscaler: Upscaler, device: str, colour: Colour, clock: Clock) -> None:
        self._upscaler, self._device, self._colour = upscaler, device, colour
        self._chain = UpscaleChain(upscaler, device, Stabilise.OFF, clock=clock)
        self._session: Any = None
        self._size: Size | None = None
        self._owed: deque[Picture] = deque()
        self._cuts = Cuts()

    def push(self, picture: Picture) -> Iterator[Picture]:
        scale = self._upscaler.spec.scale
        if self._upscaler.spec.name == "bicubic":
            yield picture.with_planes(
                *(_bicubic(p, scale) for p in (picture.y, picture.u, picture.v))
            )
            return
        if self._upscaler.spec.pixels is Pixels.RGB:
            yield from self._push_rgb(picture)
            return
        self._owed.append(picture)
        upper = Planes(*((p >> 2).astype(np.uint8) for p in (picture.y, picture.u, picture.v)))
        frame = Frame(pts=0, size=picture.size, planes=upper, colour=self._colour, arrived_s=0.0)
        for done in self._chain.push(frame):
            yield self._joined(done.planes)

    def finish(self) -> Iterator[Picture]:
        if self._session is not None:
            session, self._session = self._session, None
            yield from self._from_rgb(session, session.finish())
            return
        for done in self._chain.finish():
            yield self._joined(done.planes)

    def close(self) -> None:
        """Nothing runs beside."""

    def _joined(self, upper: Planes) -> Picture:
        picture = self._owed.popleft()
        scale = self._upscaler.spec.scale
        planes = []
        for high, plane in zip(
            (upper.y, upper.u, upper.v), (picture.y, picture.u, picture.v), strict=True
        ):
            low = cv2.resize(
                (plane & 3).astype(np.float32),
                (plane.shape[1] * scale, plane.shape[0] * scale),
                interpolation=cv2.INTER_CUBIC,
            )[: high.shape[0], : high.shape[1]]
            whole = high.astype(np.float32) * 4 + low
            planes.append(np.clip(np.rint(whole), 0, 1023).astype(np.uint16))
        return picture.with_planes(*planes)

    def _push_rgb(self, picture: Picture) -> Iterator[Picture]:
        from streamlift.offline.deep_rgb import to_rgb

        spec = self._upscaler.spec
        multiple = spec.multiple
        upper = (picture.y >> 2).astype(np.uint8)
        cut = spec.on_cut is OnCut.RESTART and self._cuts.at(upper)
        if cut or picture.size != self._size:
            yield from self.finish()
        if self._session is None:
            sides = (picture.size.width, picture.size.height)
            padded = Size(*(-(-side // multiple) * multiple for side in sides))
            self._session, self._size = self._upscaler.open(padded), picture.size
        self._owed.append(picture)
        rgb = to_rgb(picture, self._colour, self._device, multiple)
        yield from self._from_rgb(self._session, self._session.push(rgb))

    def _from_rgb(self, session: Any, groups: Iterator[Any]) -> Iterator[Picture]:
        from streamlift.offline.deep_rgb import of_numbers, to_picture

        for group in groups:
            for one in of_numbers(group, session):
                if not self._owed:
                    raise UpscaleError("upscaler gave more frames than it took")
                picture = self._owed.popleft()
                yield to_picture(one, picture, self._colour, self._upscaler.spec.scale)


def several_at_a_time(upscaler: Upscaler, size: Size, free_bytes: int | None) -> Upscaler:
    """For a GPU, as far as half of its free memory goes; None is free where there is none."""
    if free_bytes is None or not isinstance(upscaler, Batches):
        return upscaler
    one = upscaler.session_bytes(padded_size(size, upscaler.spec.multiple))
    count = min(_BATCH, free_bytes // 2 // max(1, one))
    return upscaler.batched(count) if count > 1 else upscaler


def _bicubic(plane: Samples, scale: int) -> Samples:
    height, width = plane.shape
    enlarged = cv2.resize(plane, (width * scale, height * scale), interpolation=cv2.INTER_CUBIC)
    return np.minimum(enlarged, 1023)


def _frame(picture: Picture, colour: Colour, pts: int) -> Frame:
    return Frame(
        pts=pts,
        size=picture.size,
        planes=Planes(picture.y, picture.u, picture.v),
        colour=colour,
        arrived_s=0.0,
    )


def _with(picture: Picture, planes: Planes) -> Picture:
    return picture.with_planes(planes.y, planes.u, planes.v)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
