"""The temporal stabiliser for pictures in RGB, where they are: on the GPU, or on the CPU."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from streamlift.frames import Colour, Plane, Planes, Stabilise
from streamlift.integrations.scope.pixels import pack, unpack

__all__ = ["Calming", "GpuCalming", "calming_for"]


class Calming(Protocol):
    """One session's stabiliser, of one strength."""

    def apply(self, lr: Tensor, hr: Tensor) -> Tensor:
        """(n, H, W, 3) and (n, sH, sW, 3) uint8 -> the latter, calmed."""
        ...

    def reset(self) -> None: ...


def calming_for(strength: Stabilise, device: torch.device) -> Calming:
    """Raises ImportError where av or OpenCV, which the engine needs, are not installed."""
    return CpuCalming(strength) if device.type == "cpu" else GpuCalming(strength)


class CpuCalming:
    """Only what the stabiliser changes passes through 4:2:0, so colour keeps its resolution."""

    def __init__(self, strength: Stabilise) -> None:
        from streamlift.engine.stabilise import Stabiliser

        self._stabiliser = Stabiliser(strength)

    def apply(self, lr: Tensor, hr: Tensor) -> Tensor:
        from streamlift.engine.yuv import rgb_to_planes

        rgb = unpack(hr)
        lumas = [planes.y for planes in rgb_to_planes(unpack(lr), Colour())]
        changes = [
            _rgb_change(planes, self._stabiliser.apply(luma, planes))
            for luma, planes in zip(lumas, rgb_to_planes(rgb, Colour()), strict=True)
        ]
        return pack(rgb + torch.cat(changes))

    def reset(self) -> None:
        self._stabiliser.reset()


class GpuCalming:
    """Luma and chroma at full resolution; nothing leaves the device and nothing waits for it."""

    def __init__(self, strength: Stabilise) -> None:
        # Any: what torch's side of the engine takes and gives are tensors alone.
        from streamlift.engine.stabilise_torch import TorchStabiliser

        self._stabiliser: Any = TorchStabiliser(strength)

    def apply(self, lr: Tensor, hr: Tensor) -> Tensor:
        rgb, lumas = unpack(hr), _luma(unpack(lr))
        calmed = []
        for picture, luma in zip(rgb, lumas, strict=True):
            # The session looks for cuts itself: deciding here would wait for the device.
            y, cb, cr = self._stabiliser.apply(luma, _to_ycc(picture), cut=False)
            calmed.append(_to_rgb(y, cb, cr))
        return pack(torch.stack(calmed))

    def reset(self) -> None:
        self._stabiliser.reset()


def _luma(rgb: Tensor) -> Tensor:
    """(n, 3, H, W) in [0, 1] -> (n, H, W) in levels; BT.601, full range."""
    red, green, blue = rgb.unbind(dim=1)
    return (0.299 * red + 0.587 * green + 0.114 * blue) * 255.0


def _to_ycc(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = _luma(rgb[None])[0]
    return y, (rgb[2] * 255.0 - y) / 1.772, (rgb[0] * 255.0 - y) / 1.402


def _to_rgb(y: Tensor, cb: Tensor, cr: Tensor) -> Tensor:
    green = y - 0.344136 * cb - 0.714136 * cr
    return torch.stack((y + 1.402 * cr, green, y + 1.772 * cb)) / 255.0


def _rgb_change(before: Planes, after: Planes) -> Tensor:
    """What turning `before` into `after` (BT.601, limited range) does to RGB, (1, 3, H, W)."""
    luma = _difference(before.y, after.y) / 219.0
    red = blue = torch.zeros_like(luma)
    if after.u is not before.u:
        size = luma.shape[-2:]
        blue = F.interpolate(_difference(before.u, after.u) / 224.0, size, mode="bilinear")
        red = F.interpolate(_difference(before.v, after.v) / 224.0, size, mode="bilinear")
    green = luma - 0.344136 * blue - 0.714136 * red
    return torch.cat((luma + 1.402 * red, green, luma + 1.772 * blue), dim=1)


def _difference(before: Plane, after: Plane) -> Tensor:
    new, old = (torch.as_tensor(plane).float() for plane in (after, before))
    return (new - old)[None, None]
