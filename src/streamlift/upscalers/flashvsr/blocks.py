"""Which key blocks each query block attends to: the form that every attention here takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["BlockLists"]


@dataclass(frozen=True, slots=True, eq=False)
class BlockLists:
    """count (H, Q) and index (H, Q, K), both int32; the first `count` entries of a row are used."""

    count: Tensor
    index: Tensor

    @classmethod
    def from_mask(cls, keep: Tensor) -> BlockLists:
        """From (H, Q, K) bool; indices ascend."""
        order = keep.logical_not().to(torch.int8).argsort(dim=-1, stable=True)
        return cls(keep.sum(-1, dtype=torch.int32), order.to(torch.int32))

    def to_mask(self) -> Tensor:
        """(H, Q, K) bool."""
        used = torch.arange(self.index.shape[-1], device=self.count.device) < self.count[..., None]
        return torch.zeros_like(used).scatter_(-1, self.index.long(), used)
