"""The stabiliser for pictures that are already on a GPU: the arithmetic of `stabilise` in torch.

Motion comes from block matching here, since OpenCV's flow runs on the CPU only; any other field
may be given. Nothing is copied to the host and nothing waits for the device but the scene cut,
which is one number per frame and may be left to the CPU twin (`cut`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from streamlift.engine.stabilise import (
    CUT_RESIDUAL,
    PRESETS,
    confidence,
    history_share,
    match_floor,
    next_age,
    stay_share,
)
from streamlift.frames import Stabilise

__all__ = ["TorchStabiliser", "block_motion"]

LEVELS_OF_PYRAMID = 4
COARSE_REACH, FINE_REACH = 4, 2


class TorchStabiliser:
    """One stream's stabiliser on one device; see `stabilise.Stabiliser`."""

    def __init__(self, strength: Stabilise) -> None:
        self._preset = PRESETS.get(strength)
        self._state: _State | None = None

    def apply(
        self,
        lr: Tensor,
        hr: tuple[Tensor, ...],
        *,
        flow: Tensor | None = None,
        cut: bool | None = None,
    ) -> tuple[Tensor, ...]:
        """LR luma (H, W) and HR planes (y, u, v), float levels 0 to 255 -> calmed planes.

        `flow` (H, W, 2): where in the frame before each LR pixel comes from, in pixels; by
        default from block matching. `cut` None decides about a scene cut here, which waits for
        the device once. Planes are not clipped. With strength lite only y changes.
        """
        if self._preset is None:
            return hr
        state = self._state
        planes = hr if self._preset.chroma else hr[:1]
        if state is None or not state.fits(lr, planes):
            self._state = _State(lr, torch.zeros_like(lr), planes)
            return hr
        flow = block_motion(lr, state.lr) if flow is None else flow
        # Rounded as the CPU's bytes are, so that both twins decide alike.
        moving = _residual(lr, _warp(state.lr, flow).round())
        still = _residual(lr, state.lr)
        stay = stay_share(torch, moving, still)
        residual = moving + (still - moving) * stay
        if cut is None:
            cut = bool(residual.mean() > CUT_RESIDUAL)
        if cut:
            self._state = _State(lr, torch.zeros_like(lr), planes)
            return hr
        flow = flow * (1.0 - stay)[..., None]
        floor = match_floor(torch, residual, self._preset.least_floor)
        trust = confidence(torch, stay, moving, still, _contrast(lr), floor)
        age = next_age(torch, _warp(state.age, flow), trust)
        weight = history_share(torch, age, self._preset, stay) * trust
        calmed = tuple(
            _blend(plane, last, flow, weight, self._preset.bound)
            for plane, last in zip(planes, state.last, strict=True)
        )
        self._state = _State(lr, age, calmed)
        return (*calmed, *hr[len(calmed) :])

    def reset(self) -> None:
        """Forget everything: the next frame is returned as it is."""
        self._state = None


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """What is remembered between frames, on the device."""

    lr: Tensor
    age: Tensor
    last: tuple[Tensor, ...]

    def fits(self, lr: Tensor, planes: tuple[Tensor, ...]) -> bool:
        shapes = [plane.shape for plane in planes]
        return lr.shape == self.lr.shape and shapes == [plane.shape for plane in self.last]


def block_motion(now: Tensor, before: Tensor) -> Tensor:
    """Motion (H, W, 2) in pixels by coarse-to-fine matching of 5x5 blocks; inputs (H, W) floats.

    Four levels: +-4 pixels on the coarsest, +-2 on each finer one, then a parabola through the
    three errors around the best in each direction, and a 3x3 median.
    """
    pyramid = [(now, before)]
    while len(pyramid) < LEVELS_OF_PYRAMID and min(pyramid[-1][0].shape) >= 32:
        pyramid.append((_halved(pyramid[-1][0]), _halved(pyramid[-1][1])))
    flow = torch.zeros(*pyramid[-1][0].shape, 2, device=now.device, dtype=now.dtype)
    for level, (a, b) in enumerate(reversed(pyramid)):
        if level:
            flow = _resized(flow.permute(2, 0, 1), a.shape).permute(1, 2, 0) * 2
        flow = _refined(a, b, flow, COARSE_REACH if level == 0 else FINE_REACH)
    return flow


def _refined(now: Tensor, before: Tensor, flow: Tensor, reach: int) -> Tensor:
    offsets = [(dx, dy) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
    start = flow.round()
    errors = torch.stack([_block_error(now, before, start, offset) for offset in offsets])
    # A hair in favour of no change keeps flat areas from wandering.
    errors[offsets.index((0, 0))] -= 0.01
    side = 2 * reach + 1
    best = errors.argmin(0)
    x, y = best % side, best // side
    table = errors.reshape(side, side, *now.shape)

    def at(row: Tensor, column: Tensor) -> Tensor:
        index = (row.clamp(0, side - 1) * side + column.clamp(0, side - 1))[None]
        return table.flatten(0, 1).gather(0, index)[0]

    here = at(y, x)
    sub_x = _parabola(at(y, x - 1), here, at(y, x + 1)) * ((x > 0) & (x < side - 1))
    sub_y = _parabola(at(y - 1, x), here, at(y + 1, x)) * ((y > 0) & (y < side - 1))
    found = start + torch.stack([x - reach + sub_x, y - reach + sub_y], -1)
    return _median(found)


def _block_error(now: Tensor, before: Tensor, flow: Tensor, offset: tuple[int, int]) -> Tensor:
    shift = torch.tensor(offset, device=now.device, dtype=now.dtype)
    difference = (now - _warp(before, flow + shift)).abs()
    edged = functional.pad(difference[None, None], (2, 2, 2, 2), mode="replicate")
    return functional.avg_pool2d(edged, 5, 1)[0, 0]


def _parabola(left: Tensor, middle: Tensor, right: Tensor) -> Tensor:
    """Where between -0.5 and 0.5 a parabola through three errors is least."""
    bend = left - 2 * middle + right
    return (0.5 * (left - right) / bend.clamp_min(1e-3)).clamp(-0.5, 0.5)


def _median(flow: Tensor) -> Tensor:
    edged = functional.pad(flow.permute(2, 0, 1)[None], (1, 1, 1, 1), mode="replicate")
    around = edged.unfold(2, 3, 1).unfold(3, 3, 1)  # (1, 2, H, W, 3, 3)
    return around.flatten(-2).median(-1).values[0].permute(1, 2, 0)


def _blend(plane: Tensor, last: Tensor, flow: Tensor, weight: Tensor, bound: float) -> Tensor:
    if plane.shape != weight.shape:
        scale = plane.shape[1] / weight.shape[1]
        flow = _resized(flow.permute(2, 0, 1) * scale, plane.shape).permute(1, 2, 0)
        weight = _resized(weight[None], plane.shape)[0]
    detail = _warp(last, flow, mode="bicubic") - plane
    return plane + weight * (detail - _local_mean(detail)).clamp(-bound, bound)


def _contrast(lr: Tensor) -> Tensor:
    """As the CPU's: 3x3 spread of levels, averaged over 5x5 and rounded."""
    high, low = (
        functional.max_pool2d(sign * lr[None, None], 3, stride=1, padding=1) for sign in (1, -1)
    )
    edged = functional.pad(high + low, (2, 2, 2, 2), mode="reflect")
    return functional.avg_pool2d(edged, 5, stride=1)[0, 0].round()


def _residual(lr: Tensor, moved: Tensor) -> Tensor:
    taps = torch.exp(-(torch.arange(-2, 3, device=lr.device, dtype=lr.dtype) ** 2) / (2 * 1.2**2))
    taps = taps / taps.sum()
    difference = functional.pad((lr - moved).abs()[None, None], (2, 2, 2, 2), mode="reflect")
    rows = functional.conv2d(difference, taps.reshape(1, 1, 1, 5))
    return functional.conv2d(rows, taps.reshape(1, 1, 5, 1))[0, 0]


def _local_mean(values: Tensor) -> Tensor:
    small = functional.pad(_halved(values)[None, None], (2, 2, 2, 2), mode="reflect")
    return _resized(functional.avg_pool2d(small, 5, 1)[0], values.shape)[0]


def _halved(values: Tensor) -> Tensor:
    return functional.avg_pool2d(values[None, None], 2, ceil_mode=True)[0, 0]


def _resized(values: Tensor, shape: torch.Size) -> Tensor:
    """(C, H, W) to another height and width, linearly."""
    return functional.interpolate(values[None], tuple(shape), mode="bilinear")[0]


def _warp(image: Tensor, flow: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Each pixel (x, y) of the result is the image (H, W) at (x, y) + flow."""
    height, width = image.shape
    y = torch.arange(height, device=image.device, dtype=image.dtype)[:, None]
    x = torch.arange(width, device=image.device, dtype=image.dtype)[None, :]
    where = torch.stack(
        [(x + flow[..., 0]) * (2 / (width - 1)) - 1, (y + flow[..., 1]) * (2 / (height - 1)) - 1],
        -1,
    )
    return functional.grid_sample(
        image[None, None], where[None], mode, padding_mode="border", align_corners=True
    )[0, 0]
