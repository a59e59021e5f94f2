"""Colour fix: each output frame takes its colours from the low-quality frame of the same index."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ColourFix", "adain", "fix_colour", "wavelet"]

_ADAIN_EPS = 1e-5
WAVELET_LEVELS = 5


class ColourFix(StrEnum):
    """ADAIN matches mean and deviation; WAVELET takes the low frequencies; OFF only clamps."""

    ADAIN = "adain"
    WAVELET = "wavelet"
    OFF = "off"


def fix_colour(
    frames: Tensor, lq: Tensor, kind: ColourFix, *, wavelet_levels: int = WAVELET_LEVELS
) -> Tensor:
    """frames, lq: (n, 3, H, W) around [-1, 1] -> the same shape, clamped to [-1, 1]."""
    if kind is ColourFix.ADAIN:
        frames = adain(frames, lq)
    elif kind is ColourFix.WAVELET:
        frames = wavelet(frames, lq, levels=wavelet_levels)
    return frames.clamp(-1, 1)


def adain(frames: Tensor, lq: Tensor) -> Tensor:
    """Mean and standard deviation of each frame and channel become those of `lq`."""
    variance, mean = torch.var_mean(frames, dim=(2, 3), keepdim=True, correction=0)
    lq_variance, lq_mean = torch.var_mean(lq, dim=(2, 3), keepdim=True, correction=0)
    gain = torch.sqrt((lq_variance + _ADAIN_EPS) / (variance + _ADAIN_EPS))
    return (frames - mean) * gain + lq_mean


def wavelet(frames: Tensor, lq: Tensor, *, levels: int = WAVELET_LEVELS) -> Tensor:
    """High frequencies of `frames` on low frequencies of `lq` (a trous, radius 1, 2, 4, ...)."""
    return frames + _low(lq - frames, levels)


def _low(x: Tensor, levels: int) -> Tensor:
    """The 3 x 3 binomial kernel, applied with doubling dilation; it is separable and linear."""
    for level in range(levels):
        radius = 2**level
        x = F.pad(x, (radius, radius, radius, radius), mode="replicate")
        x = _smooth(_smooth(x, 2, radius), 3, radius)
    return x


def _smooth(x: Tensor, axis: int, radius: int) -> Tensor:
    """(1, 2, 1) / 4 along one axis with a step of `radius`; shorter by two steps."""
    length = x.shape[axis] - 2 * radius
    middle = x.narrow(axis, radius, length)
    sides = x.narrow(axis, 0, length) + x.narrow(axis, 2 * radius, length)
    return torch.lerp(sides * 0.5, middle, 0.5)
