"""Modulated deformable convolution (Zhu et al., "Deformable ConvNets v2", 2019) in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from streamlift.errors import UpscaleError
from streamlift.upscalers.basicvsr.warp import pixel_grid, sample_at

__all__ = ["modulated_deform_conv2d"]


def modulated_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """A convolution of x (n, c, H, W) whose taps are moved by `offset` and weighed by `mask`.

    offset: (n, 2 * deform_groups * taps, h, w) in pixels: for each deform group and each tap, row
    by row, first down, then across. mask: (n, deform_groups * taps, h, w), already in [0, 1].
    weight: (o, c / groups, kh, kw). Samples outside count as zero, corner by corner. Positions are
    float32 whatever x is. Returns (n, o, h, w). Raises UpscaleError when shapes do not fit.
    """
    n, channels, height, width = x.shape
    outputs, _, kernel_height, kernel_width = weight.shape
    taps = kernel_height * kernel_width
    out_height = _length(height, kernel_height, stride, padding, dilation)
    out_width = _length(width, kernel_width, stride, padding, dilation)
    expected = (n, 2 * deform_groups * taps, out_height, out_width)
    if tuple(offset.shape) != expected:
        raise UpscaleError(
            "offsets do not fit the deformable convolution",
            found=tuple(offset.shape),
            expected=expected,
        )
    shape = (n, deform_groups, taps, out_height, out_width)
    moved = offset.float().view(n, deform_groups, taps, 2, out_height, out_width)
    share = mask.view(shape)
    parts = x.reshape(n * deform_groups, channels // deform_groups, height, width)
    rows, columns = pixel_grid(out_height, out_width, x.device)
    # (groups, o / groups, c / groups) for each tap: one matrix product a tap holds a ninth of the
    # memory that all of them gathered would.
    kernels = weight.reshape(groups, outputs // groups, channels // groups, taps)
    out = x.new_zeros(n, groups, outputs // groups, out_height * out_width)
    for tap in range(taps):
        down, across = divmod(tap, kernel_width)
        at_rows = rows * stride - padding + down * dilation + moved[:, :, tap, 0]
        at_columns = columns * stride - padding + across * dilation + moved[:, :, tap, 1]
        sampled = sample_at(parts, at_rows.flatten(0, 1), at_columns.flatten(0, 1))
        sampled = sampled.view(n, deform_groups, -1, out_height, out_width)
        sampled = sampled * share[:, :, tap, None]
        columns_of_tap = sampled.reshape(n, groups, channels // groups, -1)
        out += torch.matmul(kernels[..., tap], columns_of_tap)
    out = out.view(n, outputs, out_height, out_width)
    return out if bias is None else out + bias.view(1, -1, 1, 1)


def _length(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
