"""The twin of `resample` for levels that are on a GPU: another size before they are packed."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from streamlift.frames import Colour
from streamlift.sizes import Box, Layout

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["laid_out_levels", "lanczos"]

_LOBES = 3


def laid_out_levels(
    y: Tensor, chroma: Tensor, layout: Layout, colour: Colour
) -> tuple[Tensor, Tensor]:
    """Luma (n, H, W) and chroma (n, 2, ceil(H/2), ceil(W/2)), float32 levels, as `layout` has it.

    Lanczos of three lobes, widened where it shrinks, edges replicated, each plane about its centre.
    What rings below 0 or above 255 is left to whoever rounds. Queues work only.
    """
    luma, grey, _ = colour.black
    return _planes(y, layout, luma), _planes(chroma, layout.halved(), grey)


def _planes(levels: Tensor, layout: Layout, black: int) -> Tensor:
    """(..., H, W) to (..., out)."""
    part = _view(levels, layout.shown)
    place = layout.place
    rows = _on(levels.device, part.shape[-2], place.size.height)
    columns = _on(levels.device, part.shape[-1], place.size.width)
    part = rows @ part @ columns.T
    if place.size == layout.out:
        return part
    whole = levels.new_full((*levels.shape[:-2], layout.out.height, layout.out.width), black)
    _view(whole, place)[:] = part
    return whole


def _view(levels: Tensor, box: Box) -> Tensor:
    size = box.size
    return levels[..., box.top : box.top + size.height, box.left : box.left + size.width]


@lru_cache(maxsize=32)
def _on(device: torch.device, old: int, new: int) -> Tensor:
    """One side's weights; a stream uses four, and they do not change while its size does not."""
    import torch

    return torch.from_numpy(lanczos(old, new)).to(device)


def lanczos(old: int, new: int) -> npt.NDArray[np.float32]:
    """Weights (new, old) that resample one side: each row sums to 1.

    The kernel is widened by old / new where that is above 1, so that what a smaller picture
    cannot hold does not come back as an alias (K. Turkowski, Graphics Gems I, 1990).
    """
    width = max(1.0, old / new)
    centre = (np.arange(new)[:, None] + 0.5) * (old / new) - 0.5
    reach = int(np.ceil(_LOBES * width))
    sample = np.floor(centre).astype(np.intp) + np.arange(-reach, reach + 2)
    distance = (sample - centre) / width
    weight = np.where(
        np.abs(distance) < _LOBES, np.sinc(distance) * np.sinc(distance / _LOBES), 0.0
    )
    weight /= weight.sum(axis=1, keepdims=True)
    whole = np.zeros((new, old), np.float64)
    rows = np.broadcast_to(np.arange(new)[:, None], sample.shape)
    np.add.at(whole, (rows, sample.clip(0, old - 1)), weight)  # edges replicated
    return whole.astype(np.float32)
