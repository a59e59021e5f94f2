"""Planes of 10 bits to RGB tensors and back, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamlift.errors import InvalidOutput
from streamlift.frames import Colour
from streamlift.offline.pictures import Picture
from streamlift.upscalers.base import Redoable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LUMA_WEIGHTS", "of_numbers", "to_picture", "to_rgb"]

LUMA_WEIGHTS = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}
"""(Kr, Kb) of BT.601-7, BT.709-6 and BT.2020-2."""


def to_rgb(picture: Picture, colour: Colour, device: str, multiple: int) -> Tensor:
    """(1, 3, H, W) float32 in [0, 1], the edge repeated until both sides divide by `multiple`."""
    import torch
    from torch.nn import functional as F

    kr, kb = LUMA_WEIGHTS[colour.matrix]
    y, u, v = (_tensor(p, device) for p in (picture.y, picture.u, picture.v))
    chroma = torch.cat((u, v), dim=1)  # (1, 2, h, w)
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bicubic", align_corners=False)
    chroma = chroma[..., : y.shape[-2], : y.shape[-1]]
    if colour.full_range:
        y, chroma = y / 1023, (chroma - 512) / 1023
    else:
        y, chroma = (y - 64) / 876, (chroma - 512) / 896
    red = y + 2 * (1 - kr) * chroma[:, 1:]
    blue = y + 2 * (1 - kb) * chroma[:, :1]
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    rgb = torch.cat((red, green, blue), dim=1).clamp_(0, 1)
    right, down = (-rgb.shape[-1]) % multiple, (-rgb.shape[-2]) % multiple
    return F.pad(rgb, (0, right, 0, down), mode="replicate") if right or down else rgb


def of_numbers(group: Tensor, session: object) -> Tensor:
    """A model's output, made anew where it is not of numbers; InvalidOutput if it stays so."""
    import torch

    if not bool(torch.isfinite(group).all()) and isinstance(session, Redoable):
        group = session.redo()
    if not bool(torch.isfinite(group).all()):
        raise InvalidOutput(
            "upscaler gave a picture that is not of numbers", found="NaN", expected="a picture"
        )
    return group


def to_picture(rgb: Tensor, source: Picture, colour: Colour, scale: int) -> Picture:
    """(3, H, W) in [0, 1] as the enlarged picture of `source`, padding cut off."""
    import torch
    from torch.nn import functional as F

    kr, kb = LUMA_WEIGHTS[colour.matrix]
    size = source.size.times(scale)
    rgb = rgb.to(torch.float32)[:, : size.height, : size.width].clamp(0, 1)
    red, green, blue = rgb.unbind(0)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = torch.stack(((blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))))[None]
    right, down = size.width % 2, size.height % 2
    if right or down:
        chroma = F.pad(chroma, (0, right, 0, down), mode="replicate")
    chroma = F.avg_pool2d(chroma, 2)[0]
    if colour.full_range:
        y, chroma = y * 1023, chroma * 1023 + 512
    else:
        y, chroma = y * 876 + 64, chroma * 896 + 512
    planes = (_samples(p) for p in (y, chroma[0], chroma[1]))
    return source.with_planes(*planes)


def _tensor(plane: Any, device: str) -> Tensor:
    import torch

    return torch.from_numpy(plane.astype(np.float32))[None, None].to(device)


def _samples(plane: Tensor) -> Any:
    return plane.round().clamp(0, 1023).cpu().numpy().astype(np.uint16)
