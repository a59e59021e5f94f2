"""A 3x3 convolution with all that surrounds it, in one pass over memory: the plain-torch twin.

What decoders and dense blocks do between convolutions (join two inputs, add a bias, clip, scale
and add what came before) is done while the result is still in registers. On CUDA the kernel of
`convolution_triton` runs, elsewhere the twin here, which defines it. Both read and write slices of
channels of larger channels-last buffers, so nothing is concatenated.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op
from torch.nn import functional as F

__all__ = ["conv3x3", "enlarging_conv", "fold_enlargement", "pack_taps"]


@custom_op("streamlift::conv3x3", mutates_args=("out",))
def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    second: Tensor | None = None,
    before: Tensor | None = None,
    slope: float = 1.0,
    residual: Tensor | None = None,
    outer: Tensor | None = None,
    scales: list[float] | None = None,
) -> None:
    """A 3x3 convolution with zero padding into `out`, and what follows it (epilogue).

    x (n, c1, h, w); weight (9, c1 + c2, outputs), see `pack_taps`; bias (outputs,) or None;
    out (n, outputs, h, w). `second` (n, c2, h, w): further input channels. Where `before`
    (1, c2, h, w) is given, second is shifted by one picture: picture t sees picture t - 1 of it,
    the first one `before`.

    Epilogue: y = conv + bias. Without `scales` y = y + residual if there is one, and then
    negative values are multiplied by `slope` (0: ReLU, 1: none). With `scales` the slope comes
    first, then y = y * scales[0] + residual, and the same with scales[1] and `outer` if given.
    """
    if _kernels(x):
        _triton().conv3x3(x, weight, bias, out, second, before, slope, residual, outer, scales)
        return
    seen = x if second is None else torch.cat((x, _shifted(second, before)), 1)
    kernel = torch.unflatten(weight.permute(2, 1, 0), 2, (3, 3))
    y = F.conv2d(seen, kernel, bias, padding=1)
    out.copy_(_finish(y, slope, [one for one in (residual, outer) if one is not None], scales))


@custom_op("streamlift::enlarging_conv", mutates_args=("out",))
def enlarging_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, slope: float = 1.0
) -> None:
    """Nearest enlargement by 2, and a 3x3 convolution after it, on the small grid.

    x (n, c, h, w); weight (times, 2, 2, 4, c, outputs) from `fold_enlargement`: step, row and
    column of the phase, then taps; out (n * times, outputs, 2 h, 2 w), steps of a picture in turn.
    Each of the four phases of the large grid is a 2x2 convolution of the small one.
    """
    if _kernels(x):
        _triton().enlarging_conv(x, weight, bias, out, slope)
        return
    times = weight.shape[0]
    for step in range(times):
        for row in range(2):
            for column in range(2):
                kernel = torch.unflatten(weight[step, row, column].permute(2, 1, 0), 2, (2, 2))
                edged = F.pad(x, (1 - column, column, 1 - row, row))
                y = _finish(F.conv2d(edged, kernel, bias), slope, [], None)
                out[step::times, :, row::2, column::2] = y


def pack_taps(weight: Tensor) -> Tensor:
    """(outputs, c, 3, 3) -> (9, c, outputs), rows of taps first."""
    return weight.flatten(2).permute(2, 1, 0).contiguous()


def fold_enlargement(weight: Tensor, before: Tensor | None = None, times: int = 1) -> Tensor:
    """Weights of `enlarging_conv`: of the 3x3 convolution (outputs, m, 3, 3) after enlarging.

    `before`: a 1x1 convolution (times * m, c, 1, 1) without bias ahead of it, whose output
    channels are `times` steps. Products are taken in float64 and rounded once.
    """
    wide = weight.double()
    steps = [None] * times if before is None else list(before.double().flatten(1).chunk(times))
    folded = []
    for step in steps:
        taps = wide if step is None else torch.einsum("omyx,mc->ocyx", wide, step)
        rows = [_phase(_phase(taps, 2, row), 3, column) for row in (0, 1) for column in (0, 1)]
        phases = torch.stack([phase.flatten(2).permute(2, 1, 0) for phase in rows])
        folded.append(torch.unflatten(phases, 0, (2, 2)))
    return torch.stack(folded).to(weight.dtype).contiguous()


def _phase(taps: Tensor, axis: int, phase: int) -> Tensor:
    """Three taps of the large grid to two of the small one: those that meet in one pixel."""
    first, second, third = taps.unbind(axis)
    pair = (first, second + third) if phase == 0 else (first + second, third)
    return torch.stack(pair, axis)


def _shifted(second: Tensor, before: Tensor | None) -> Tensor:
    return second if before is None else torch.cat((before, second[:-1]))


def _finish(y: Tensor, slope: float, residuals: list[Tensor], scales: list[float] | None) -> Tensor:
    if scales is None:
        for residual in residuals:
            y = y + residual
        return _sloped(y, slope)
    y = _sloped(y, slope)
    for residual, scale in zip(residuals, scales, strict=True):
        y = y * scale + residual
    return y


def _sloped(y: Tensor, slope: float) -> Tensor:
    if slope == 1.0:
        return y
    return F.relu(y) if slope == 0.0 else F.leaky_relu(y, slope)


@conv3x3.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    second: Tensor | None = None,
    before: Tensor | None = None,
    slope: float = 1.0,
    residual: Tensor | None = None,
    outer: Tensor | None = None,
    scales: list[float] | None = None,
) -> None:
    return None


@enlarging_conv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, slope: float = 1.0) -> None:
    return None


def _kernels(x: Tensor) -> bool:
    return x.is_cuda and _has_triton()


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _triton() -> Any:
    return importlib.import_module("streamlift.upscalers.convolution_triton")
