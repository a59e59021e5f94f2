"""Picture and stability figures on luma, 8-bit levels, with an 8-pixel border left out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamlift.errors import MediaError
from streamlift.frames import Plane

__all__ = [
    "BORDER",
    "Motion",
    "e_warp",
    "flicker",
    "motion_of",
    "psnr",
    "sharpness_ratio",
    "shift_flicker",
    "ssim",
]

BORDER = 8
SHIFT_BORDER = 16
SHIFT_WARM_UP = 3
WORST_TRUTH_RESIDUAL = 20.0
WORST_LOOP = 1.0
"""Pixels by which going forward and back may miss the start in a trusted place."""

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Ground truth's motion from one frame to the one before, and where it can be trusted.

    flow (H, W, 2): frame t at p equals frame t - 1 at p + flow; trusted (H, W) bool.
    """

    flow: F32
    trusted: npt.NDArray[np.bool_]


def psnr(output: Plane, truth: Plane) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures. Raises MediaError on sizes."""
    _same_size(output, truth)
    error = float(np.mean(np.square(_inner(output) - _inner(truth))))
    return float(10 * np.log10(255.0**2 / error)) if error else float("inf")


def ssim(output: Plane, truth: Plane) -> float:
    """Structural similarity, Gaussian window 11x11 of sigma 1.5 (Wang et al. 2004)."""
    _same_size(output, truth)
    x, y = output.astype(np.float32), truth.astype(np.float32)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _window(x), _window(y)
    var_x = _window(x * x) - mean_x * mean_x
    var_y = _window(y * y) - mean_y * mean_y
    covariance = _window(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    likeness /= (mean_x * mean_x + mean_y * mean_y + c1) * (var_x + var_y + c2)
    return float(_inner(likeness).mean())


def sharpness_ratio(output: Plane, truth: Plane) -> float:
    """Spread of the 3x3 Laplacian, output over truth: 1 is as sharp, less is blurred."""
    _same_size(output, truth)
    spread = [float(_inner(cv2.Laplacian(p, cv2.CV_32F, ksize=1)).std()) for p in (output, truth)]
    return spread[0] / max(spread[1], 1e-6)


def motion_of(truth: Sequence[Plane]) -> list[Motion]:
    """Motion between successive ground-truth frames (DIS, preset MEDIUM, checked both ways)."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    motions = []
    for before, now in itertools.pairwise(truth):
        flow = cast(F32, dis.calc(now, before, None))  # type: ignore[call-overload]
        back = cast(F32, dis.calc(before, now, None))  # type: ignore[call-overload]
        loop = flow + _warped(back, flow)
        trusted = np.hypot(loop[..., 0], loop[..., 1]) < WORST_LOOP
        trusted &= np.abs(_step(now, before, flow)) < WORST_TRUTH_RESIDUAL
        motions.append(Motion(flow, trusted))
    return motions


def e_warp(output: Sequence[Plane], motions: Sequence[Motion]) -> float:
    """RMS of each frame against the one before moved along the truth's motion, in levels.

    Far below the truth's own figure means blur, not calm.
    """
    return _rms(
        [_trusted(_step(now, before, m.flow), m) for before, now, m in _pairs(output, motions)]
    )


def flicker(output: Sequence[Plane], truth: Sequence[Plane], motions: Sequence[Motion]) -> float:
    """RMS of what changes in the output along the motion but does not in the truth, in levels."""
    changes = []
    for (before, now, motion), (true_before, true_now, _) in zip(
        _pairs(output, motions), _pairs(truth, motions), strict=True
    ):
        change = _step(now, before, motion.flow) - _step(true_now, true_before, motion.flow)
        changes.append(_trusted(change, motion))
    return _rms(changes)


def shift_flicker(output: Sequence[Plane], shift: tuple[int, int]) -> float:
    """RMS change of a picture that only moves by `shift` (x, y) whole pixels a frame, in levels.

    Needs no motion estimate. The first three frames and 16 pixels of border are left out.
    """
    dx, dy = shift
    changes = []
    for before, now in zip(output[SHIFT_WARM_UP:], output[SHIFT_WARM_UP + 1 :], strict=False):
        moved = np.roll(before.astype(np.float32), (dy, dx), (0, 1))
        changes.append(_inner(now.astype(np.float32) - moved, SHIFT_BORDER).ravel())
    return _rms(changes)


def _pairs(clip: Sequence[Plane], motions: Sequence[Motion]) -> list[tuple[Plane, Plane, Motion]]:
    return list(zip(clip, clip[1:], motions, strict=False))


def _step(now: Plane, before: Plane, flow: F32) -> F32:
    return now.astype(np.float32) - _warped(before.astype(np.float32), flow)


def _trusted(change: F32, motion: Motion) -> F32:
    return cast(F32, _inner(change)[_inner(motion.trusted)])


def _warped(image: F32, flow: F32) -> F32:
    """The image at p + flow, by bicubic interpolation: a linear one would blur what it moves."""
    flags = cv2.INTER_CUBIC | cv2.WARP_RELATIVE_MAP
    none = cast(Any, None)
    return cast(F32, cv2.remap(image, flow, none, flags, borderMode=cv2.BORDER_REPLICATE))


def _window(values: Any) -> Any:
    return cv2.GaussianBlur(values, (11, 11), 1.5)


def _inner(values: Any, border: int = BORDER) -> Any:
    inner = values[border:-border, border:-border]
    return inner.astype(np.float32) if inner.dtype == np.uint8 else inner


def _rms(parts: Sequence[F32]) -> float:
    count = sum(part.size for part in parts)
    total = sum(float(np.square(part, dtype=np.float64).sum()) for part in parts)
    return float(np.sqrt(total / max(count, 1)))


def _same_size(output: Plane, truth: Plane) -> None:
    if output.shape != truth.shape:
        raise MediaError(
            "pictures to compare differ in size", found=output.shape, expected=truth.shape
        )
