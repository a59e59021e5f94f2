"""Locality-constrained sparse attention (LCSA): which 128 x 128 blocks are computed.

The choice is a hard top-k over softmax scores of block means, for each head and query unit, so it
is computed in float32 and must follow the rule exactly: one flipped block changes the picture.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streamlift.errors import ConfigError
from streamlift.upscalers.flashvsr.config import BLOCK_PIXELS, WINDOW_TOKENS

__all__ = ["block_means", "choose_blocks", "topk_from_area", "topk_from_ratio"]

_TUNED_AREA = 768 * 1280


def topk_from_area(height: int, width: int, sparse_ratio: float) -> int:
    """The authors' rule: the mean number of blocks kept a row is the same at every size.

    height, width: output pixels. At 1024 x 1024: 7679 for 2.0 ("stable"), 5759 for 1.5 ("faster").
    """
    return topk_from_ratio(height, width, sparse_ratio * _TUNED_AREA / (height * width))


def topk_from_ratio(height: int, width: int, topk_ratio: float) -> int:
    """`int(n * n * topk_ratio) - 1`, in exactly this order, which decides at some sizes.

    Raises ConfigError when so little is kept that nothing would be.
    """
    windows = (height // BLOCK_PIXELS) * (width // BLOCK_PIXELS)
    kept = int(windows * windows * topk_ratio)
    if kept < 2:
        raise ConfigError(
            "the sparse ratio keeps no attention block at this size; raise it",
            found=f"ratio {topk_ratio:g} at {width}x{height}",
            expected=f"at least {2 / windows**2:g}",
        )
    return kept - 1


def block_means(tokens: Tensor) -> Tensor:
    """(heads, windows * 128, d) -> (heads, windows, d), float32 or wider."""
    wide = tokens if tokens.dtype is torch.float64 else tokens.float()
    return torch.unflatten(wide, 1, (-1, WINDOW_TOKENS)).mean(2)


def choose_blocks(q_means: Tensor, k_means: Tensor, allowed: Tensor, topk: int) -> Tensor:
    """The blocks to compute, (heads, query windows, key windows) bool.

    q_means, k_means: (heads, windows, d), whole units; allowed: (n, n) bool, the local mask.
    Kept are the scores *strictly* above the (topk + 1)-th largest of a head and query unit, ranked
    across rows after the softmax: a row may keep many blocks or none, and ties are all dropped.
    """
    heads, queries, dim = q_means.shape
    windows = allowed.shape[0]
    scores = q_means @ k_means.transpose(1, 2) / dim**0.5
    by_unit = torch.unflatten(torch.unflatten(scores, 1, (-1, windows)), 3, (-1, windows))
    by_unit = by_unit.masked_fill(~allowed[:, None, :], -torch.inf)
    shares = by_unit.flatten(3).softmax(-1)  # (heads, query units, n, key windows)
    ranked = shares.flatten(2)
    entries = ranked.shape[-1]
    threshold = ranked.kthvalue(entries - min(entries - 1, topk), dim=-1).values
    return (shares > threshold[..., None, None]).reshape(heads, queries, -1)
