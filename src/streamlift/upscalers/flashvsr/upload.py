"""Small tensors from the host to the device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["upload"]


def upload(host: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A copy of a CPU tensor on `device`; on CUDA it is only queued.

    Through pinned memory, which torch hands out again only when the copy that read it is over.
    """
    kind = dtype or host.dtype
    if device.type != "cuda":
        return host.to(device, kind, non_blocking=True)
    pinned = torch.empty(host.shape, dtype=kind, pin_memory=True)
    pinned.copy_(host)
    return pinned.to(device, non_blocking=True)
