"""Bicubic enlargement on the YUV planes with OpenCV: the fallback that is always there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cv2

from streamlift.errors import ConfigError
from streamlift.frames import Plane, Planes, Size
from streamlift.upscalers.base import Pixels, UpscalerSpec

__all__ = ["Bicubic", "enlarge_plane"]


class Bicubic:
    """Holds no weights; any number of streams."""

    def __init__(self, scale: int = 2) -> None:
        self.spec = UpscalerSpec(name="bicubic", scale=scale, pixels=Pixels.YUV420)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Bicubic:
        """Settings: `scale` 2 or 4. Raises ConfigError for any other key or value."""
        unknown = sorted(set(settings) - {"scale"})
        if unknown:
            raise ConfigError("unknown bicubic setting", found=unknown, expected=["scale"])
        scale = settings.get("scale", 2)
        if scale not in (2, 4):
            raise ConfigError("bicubic scale must be 2 or 4", found=scale, expected=[2, 4])
        return cls(scale)

    def session_bytes(self, size: Size) -> int:
        return 0

    def open(self, size: Size, *, seed: int = 0) -> BicubicSession:
        return BicubicSession(self.spec.scale)


class BicubicSession:
    """One frame in, one frame out, no memory."""

    wanted = 1

    def __init__(self, scale: int) -> None:
        self._scale = scale

    def push(self, lr: Planes) -> Iterator[Planes]:
        yield Planes(*(enlarge_plane(p, self._scale) for p in (lr.y, lr.u, lr.v)))

    def finish(self) -> Iterator[Planes]:
        yield from ()


def enlarge_plane(plane: Plane, scale: int) -> Plane:
    """One plane (H, W) uint8 -> (scale*H, scale*W) by OpenCV bicubic (a = -0.75), edges copied."""
    height, width = plane.shape
    enlarged = cv2.resize(plane, (width * scale, height * scale), interpolation=cv2.INTER_CUBIC)
    return enlarged  # type: ignore[return-value]  # cv2's stubs lose the dtype
