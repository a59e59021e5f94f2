"""3x3 convolution as an implicit matrix product in Triton; `convolution` holds the twin.

A program makes a tile of pixels and output channels of one picture: it walks taps and input
channels, reading pixels straight from channels-last memory, and does bias, slope and residuals
before it writes. Import it only where triton is installed; nothing is newer than sm_80.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamlift.upscalers.cards import emulated

__all__ = ["conv3x3", "conv_kernel", "enlarging_conv", "launch_options"]


def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    second: Tensor | None,
    before: Tensor | None,
    slope: float,
    residual: Tensor | None,
    outer: Tensor | None,
    scales: list[float] | None,
) -> None:
    """See `convolution.conv3x3`; all pictures channels-last, or slices of channels of such."""
    added = [one for one in (residual, outer) if one is not None]
    target = _channels_last(out)
    _launch(x, weight, bias, target, second, before, slope, added, scales, side=3, phases=1)
    if target is not out:
        out.copy_(target)


def enlarging_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, slope: float
) -> None:
    """See `convolution.enlarging_conv`."""
    target = _channels_last(out)
    phases = 4 * weight.shape[0]
    _launch(x, weight, bias, target, None, None, slope, [], None, side=2, phases=phases)
    if target is not out:
        out.copy_(target)


def launch_options(outputs: int, dtype: torch.dtype) -> dict[str, Any]:
    """Tile and warps for so many output channels."""
    if dtype is torch.float32:
        tile = {"BLOCK_M": 64, "BLOCK_N": 32, "K1": 16, "num_warps": 4, "num_stages": 1}
    elif outputs <= 64:
        wide = max(16, triton.next_power_of_2(outputs))
        tile = {"BLOCK_M": 128, "BLOCK_N": wide, "K1": 32, "num_warps": 4, "num_stages": 4}
    else:
        tile = {"BLOCK_M": 128, "BLOCK_N": 128, "K1": 64, "num_warps": 8, "num_stages": 3}
    return tile


def _launch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    second: Tensor | None,
    before: Tensor | None,
    slope: float,
    residuals: list[Tensor],
    scales: list[float] | None,
    *,
    side: int,
    phases: int,
) -> None:
    x, weight = _channels_last(x), weight.contiguous()
    second, before = (None if one is None else _channels_last(one) for one in (second, before))
    first, last = ([_channels_last(r) for r in residuals] + [x, x])[:2]
    pictures, channels, height, width = x.shape
    outputs = weight.shape[-1]
    options = launch_options(outputs, x.dtype)
    # Beside it phase by phase: out picture n * steps + step, pixel (2 y + row, 2 x + column).
    times, large = max(1, phases // 4), 2 if phases > 1 else 1
    other, ahead = second if second is not None else x, before if before is not None else x
    scale = [1.0, 1.0] if scales is None else [*scales, 1.0][:2]
    grid = (
        triton.cdiv(height * width, options["BLOCK_M"]),
        pictures * phases,
        triton.cdiv(outputs, options["BLOCK_N"]),
    )
    conv_kernel[grid](
        x,
        other,
        ahead,
        weight,
        weight if bias is None else bias,
        out,
        first,
        last,
        height,
        width,
        *_steps(x),
        *_steps(other),
        *_steps(ahead)[1:],
        out.stride(0) * times,
        out.stride(2) * large,
        out.stride(3) * large,
        out.stride(0),
        out.stride(2),
        out.stride(3),
        *_steps(first),
        *_steps(last),
        slope,
        *scale,
        C1=channels,
        C2=0 if second is None else second.shape[1],
        OUT=outputs,
        SIDE=side,
        PHASES=phases,
        SHIFTED=before is not None,
        BIASED=bias is not None,
        RESIDUALS=len(residuals),
        SCALED=scales is not None,
        SLOPED=slope != 1.0,
        PRECISION="ieee" if x.dtype is torch.float32 else "tf32",
        EMULATED=emulated(),
        **options,
    )


def _steps(x: Tensor) -> tuple[int, int, int]:
    return x.stride(0), x.stride(2), x.stride(3)


def _channels_last(x: Tensor) -> Tensor:
    return x if x.stride(1) == 1 else x.contiguous(memory_format=torch.channels_last)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def conv_kernel(  # type: ignore[no-untyped-def]
    x_at,
    second_at,
    before_at,
    weight_at,
    bias_at,
    out_at,
    first_at,
    last_at,
    height,
    width,
    x_n,
    x_y,
    x_x,
    s_n,
    s_y,
    s_x,
    b_y,
    b_x,
    o_n,
    o_y,
    o_x,
    o_step,
    o_row,
    o_column,
    f_n,
    f_y,
    f_x,
    l_n,
    l_y,
    l_x,
    slope,
    first_scale,
    last_scale,
    C1: tl.constexpr,
    C2: tl.constexpr,
    OUT: tl.constexpr,
    SIDE: tl.constexpr,
    PHASES: tl.constexpr,
    SHIFTED: tl.constexpr,
    BIASED: tl.constexpr,
    RESIDUALS: tl.constexpr,
    SCALED: tl.constexpr,
    SLOPED: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    K1: tl.constexpr,
):
    """Grid (pixel tiles, pictures * phases, channel tiles). Strides in elements, channels dense."""
    picture = (tl.program_id(1) // PHASES).to(tl.int64)
    phase = tl.program_id(1) % PHASES
    pixel = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    y, x = pixel // width, pixel % width
    inside, wanted = pixel < height * width, column < OUT
    # A phase of the large grid begins a tap earlier where it is even.
    top, left = y - 1, x - 1
    if PHASES > 1:
        top += phase // 2 % 2
        left += phase % 2
    ks = tl.arange(0, K1)
    weights = weight_at + phase * (SIDE * SIDE * (C1 + C2) * OUT) + column[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    STEPS: tl.constexpr = (C1 + K1 - 1) // K1
    pixels = x_at + picture * x_n
    for step in range(SIDE * SIDE * STEPS):
        tap, c = step // STEPS, step % STEPS * K1 + ks
        at_y, at_x = top + tap // SIDE, left + tap % SIDE
        seen = inside & (at_y >= 0) & (at_y < height) & (at_x >= 0) & (at_x < width)
        place = pixels + (at_y * x_y + at_x * x_x)[:, None] + c[None, :]
        a = tl.load(place, seen[:, None] & (c < C1)[None, :], 0.0)
        w_place = weights + (tap * (C1 + C2) + c)[:, None] * OUT
        w = tl.load(w_place, (c < C1)[:, None] & wanted[None, :], 0.0)
        if EMULATED:
            a, w = a.to(tl.float32), w.to(tl.float32)
        total = tl.dot(a, w, total, input_precision=PRECISION)
    if C2 > 0:
        MORE: tl.constexpr = (C2 + K1 - 1) // K1
        others, row_step, pixel_step = second_at + picture * s_n, s_y, s_x
        if SHIFTED:
            if picture == 0:
                others, row_step, pixel_step = before_at + picture * s_n, b_y, b_x
            else:
                others -= s_n
        for step in range(SIDE * SIDE * MORE):
            tap, c = step // MORE, step % MORE * K1 + ks
            at_y, at_x = top + tap // SIDE, left + tap % SIDE
            seen = inside & (at_y >= 0) & (at_y < height) & (at_x >= 0) & (at_x < width)
            place = others + (at_y * row_step + at_x * pixel_step)[:, None] + c[None, :]
            a = tl.load(place, seen[:, None] & (c < C2)[None, :], 0.0)
            w_place = weights + (tap * (C1 + C2) + C1 + c)[:, None] * OUT
            w = tl.load(w_place, (c < C2)[:, None] & wanted[None, :], 0.0)
            if EMULATED:
                a, w = a.to(tl.float32), w.to(tl.float32)
            total = tl.dot(a, w, total, input_precision=PRECISION)
    if BIASED:
        total += tl.load(bias_at + column, wanted, 0.0).to(tl.float32)[None, :]
    both = inside[:, None] & wanted[None, :]
    if SCALED and SLOPED:
        total = tl.where(total < 0, total * slope, total)
    if RESIDUALS > 0:
        place = first_at + picture * f_n + (y * f_y + x * f_x)[:, None] + column[None, :]
        total = total * first_scale + tl.load(place, both, 0.0).to(tl.float32)
    if RESIDUALS > 1:
        place = last_at + picture * l_n + (y * l_y + x * l_x)[:, None] + column[None, :]
        total = total * last_scale + tl.load(place, both, 0.0).to(tl.float32)
    if SLOPED and not SCALED:
        total = tl.where(total < 0, total * slope, total)
    target = out_at + picture * o_n + (y * o_y + x * o_x)[:, None] + column[None, :]
    if PHASES > 1:
        target += phase // 4 * o_step + phase // 2 % 2 * o_row + phase % 2 * o_column
    tl.store(target, total.to(out_at.dtype.element_ty), both)
