"""One way for pictures to go: through a model's session, or through plain enlargement."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from streamlift.frames import Size
from streamlift.integrations.scope.pixels import crop, enlarge, pack, pad, size_of, unpack
from streamlift.upscalers.base import OnCut, Pixels, Upscaler, UpscaleSession

__all__ = ["Course", "ModelCourse", "PlainCourse"]

LEAST_STEP = 4
"""Scope measures the rate of a stage that returns single frames at 60 fps and plays them so."""


class Course(Protocol):
    """Packed pictures (1, H, W, 3) uint8 in, groups (n, H', W', 3) uint8 out, in order."""

    @property
    def choice(self) -> str: ...

    @property
    def step(self) -> int:
        """How many pictures to collect before pushing them."""
        ...

    @property
    def max_owed(self) -> int: ...

    @property
    def restarts_on_cut(self) -> bool: ...

    def push(self, picture: Tensor) -> Iterator[Tensor]: ...

    def finish(self) -> Iterator[Tensor]:
        """Give back what is owed; the next picture starts anew, at any size."""
        ...


class PlainCourse:
    """`bicubic` and `off`: nothing to load, nothing owed, never fails for want of weights."""

    step = LEAST_STEP
    max_owed = 0
    restarts_on_cut = False

    def __init__(self, choice: str) -> None:
        self.choice = choice

    def push(self, picture: Tensor) -> Iterator[Tensor]:
        yield picture if self.choice == "off" else enlarge(picture)

    def finish(self) -> Iterator[Tensor]:
        yield from ()


class ModelCourse:
    """An upscaler and the session it has open."""

    def __init__(self, choice: str, upscaler: Upscaler, device: torch.device) -> None:
        self.choice = choice
        self.max_owed = upscaler.spec.max_owed
        self.restarts_on_cut = upscaler.spec.on_cut is OnCut.RESTART
        self._upscaler = upscaler
        self._device = device
        self._session: UpscaleSession[Any] | None = None
        self._size: Size | None = None

    @property
    def step(self) -> int:
        spec = self._upscaler.spec
        if not spec.chunked:
            return LEAST_STEP
        return spec.first if self._session is None else self._session.wanted

    def push(self, picture: Tensor) -> Iterator[Tensor]:
        """Raises UpscaleError, or what the model raises."""
        spec = self._upscaler.spec
        lr = pad(unpack(picture), spec.multiple)
        if self._session is None:
            self._size = size_of(picture)
            self._session = self._upscaler.open(Size(lr.shape[-1], lr.shape[-2]))
        if spec.pixels is Pixels.RGB:
            return self._packed(self._session.push(lr))
        return self._packed(self._from_planes(self._session.push(_to_planes(lr))))

    def finish(self) -> Iterator[Tensor]:
        session, self._session = self._session, None
        if session is None:
            return iter(())
        if self._upscaler.spec.pixels is Pixels.RGB:
            return self._packed(session.finish())
        return self._packed(self._from_planes(session.finish()))

    def _packed(self, groups: Iterator[Tensor]) -> Iterator[Tensor]:
        assert self._size is not None
        size = self._size.times(self._upscaler.spec.scale)
        for group in groups:
            yield pack(crop(group, size))

    def _from_planes(self, pictures: Iterator[Any]) -> Iterator[Tensor]:
        from streamlift.engine.yuv import planes_to_rgb
        from streamlift.frames import Colour

        for planes in pictures:
            yield planes_to_rgb(planes, Colour(), self._device)


def _to_planes(rgb: Tensor) -> Any:
    # Imported only for models that work on planes: the engine needs av and OpenCV, Scope does not.
    from streamlift.engine.yuv import rgb_to_planes
    from streamlift.frames import Colour

    return rgb_to_planes(rgb, Colour())[0]
