"""The temporal stabiliser for pictures in RGB: what it changes in luma and chroma is added."""

from __future__ import annotations

import logging

import torch
from torch import Tensor
from torch.nn import functional as F

from streamlift.frames import Colour, Plane, Planes, Stabilise
from streamlift.integrations.scope.pixels import pack, unpack

__all__ = ["Calming"]

log = logging.getLogger(__name__)


class Calming:
    """One session's stabiliser; its strength may change between pictures.

    Only differences pass through 4:2:0, so colour keeps its full resolution.
    """

    def __init__(self) -> None:
        # The engine needs av and OpenCV; without them this raises ImportError.
        from streamlift.engine.stabilise import Stabiliser

        self._stabiliser = Stabiliser(Stabilise.OFF)

    def apply(self, lr: Tensor, hr: Tensor, strength: Stabilise) -> Tensor:
        """(n, H, W, 3) and (n, sH, sW, 3) uint8 -> the latter, calmed. Waits for the device."""
        from streamlift.engine.yuv import rgb_to_planes

        self._stabiliser.strength = strength
        rgb = unpack(hr)
        before = rgb_to_planes(rgb, Colour())
        lumas = [planes.y for planes in rgb_to_planes(unpack(lr), Colour())]
        changes = [
            _rgb_change(planes, self._stabiliser.apply(luma, planes), rgb.device)
            for luma, planes in zip(lumas, before, strict=True)
        ]
        return pack(rgb + torch.cat(changes))

    def reset(self) -> None:
        self._stabiliser.reset()


def _rgb_change(before: Planes, after: Planes, device: torch.device) -> Tensor:
    """What turning `before` into `after` (BT.601, limited range) does to RGB, (1, 3, H, W)."""
    luma = _difference(before.y, after.y, device) / 219.0
    red = blue = torch.zeros_like(luma)
    if after.u is not before.u:
        size = luma.shape[-2:]
        blue = F.interpolate(_difference(before.u, after.u, device) / 224.0, size, mode="bilinear")
        red = F.interpolate(_difference(before.v, after.v, device) / 224.0, size, mode="bilinear")
    green = luma - 0.344136 * blue - 0.714136 * red
    return torch.cat((luma + 1.402 * red, green, luma + 1.772 * blue), dim=1)


def _difference(before: Plane, after: Plane, device: torch.device) -> Tensor:
    new, old = (torch.as_tensor(plane, device=device).float() for plane in (after, before))
    return (new - old)[None, None]
