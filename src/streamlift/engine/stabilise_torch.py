"""The stabiliser for pictures that are already on a GPU: the arithmetic of `stabilise` in torch.

Motion comes from block matching here, since OpenCV's flow runs on the CPU only; any other field
may be given. Nothing is copied between host and device after the first frame, and nothing waits
for the device: a scene cut is decided there too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from streamlift.codec.motion import CELL
from streamlift.engine.stabilise_rules import (
    CUT_RESIDUAL,
    PRESETS,
    Preset,
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
        default from block matching. `cut` None finds a scene cut on the device; a cut gives the
        picture as it is. Planes are not clipped. With strength lite only y changes.
        """
        if self._preset is None:
            return hr
        state = self._state
        planes = hr if self._preset.chroma else hr[:1]
        if state is None or not state.fits(lr, planes):
            self._state = _State(lr, torch.zeros_like(lr), planes)
            return hr
        flow = block_motion(lr, state.lr) if flow is None else flow
        step = (_cells_step if self._preset.cells else _flow_step)(state, lr, planes, flow)
        if cut:
            self._state = _State(lr, torch.zeros_like(lr), planes)
            return hr
        age, calmed = step.advance(self._preset)
        if cut is None:
            goes_on = step.residual.mean() <= CUT_RESIDUAL
            age = age * goes_on
            calmed = tuple(
                torch.where(goes_on, new, plain) for new, plain in zip(calmed, planes, strict=True)
            )
        self._state = _State(lr, age, calmed)
        return (*calmed, *hr[len(calmed) :])

    @property
    def remembered(self) -> object:
        """What `recall` brings back."""
        return self._state

    def recall(self, remembered: object) -> None:
        """Forget all since then: those pictures were no good, and come again."""
        assert remembered is None or isinstance(remembered, _State)
        self._state = remembered

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


@dataclass(frozen=True, slots=True, eq=False)
class _FlowStep:
    """One frame by `stabilise_flow`: every pixel moves by the field or stands still."""

    state: _State
    lr: Tensor
    planes: tuple[Tensor, ...]
    flow: Tensor
    stay: Tensor
    moving: Tensor
    still: Tensor

    @property
    def residual(self) -> Tensor:
        return self.moving + (self.still - self.moving) * self.stay

    def advance(self, preset: Preset) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The new ages and outputs."""
        flow = self.flow * (1.0 - self.stay)[..., None]
        floor = match_floor(torch, self.residual, preset)
        contrast = _contrast(self.lr)
        trust = confidence(torch, self.stay, self.moving, self.still, contrast, floor, preset)
        age = next_age(torch, _warp(self.state.age, flow), trust)
        weight = history_share(torch, age, preset, self.stay) * trust
        calmed = tuple(
            _blend(plane, last, flow, weight, preset.bound)
            for plane, last in zip(self.planes, self.state.last, strict=True)
        )
        return age, calmed


def _flow_step(state: _State, lr: Tensor, planes: tuple[Tensor, ...], flow: Tensor) -> _FlowStep:
    # Rounded as the CPU's bytes are, so that both twins decide alike.
    moving = _residual(lr, _warp(state.lr, flow).round())
    still = _residual(lr, state.lr)
    return _FlowStep(state, lr, planes, flow, stay_share(torch, moving, still), moving, still)


@dataclass(frozen=True, slots=True, eq=False)
class _CellsStep:
    """One frame by `stabilise_cells`: y alone, whole cells moved by half HR pixels."""

    state: _State
    lr: Tensor
    y: Tensor
    cells: Tensor
    difference: Tensor
    residual: Tensor

    def advance(self, preset: Preset) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The new ages and output."""
        floor = match_floor(torch, self.residual, preset)
        stay = _spread((self.cells == 0).all(-1).float(), CELL, self.lr.shape)
        residual, contrast = self.residual, _contrast(self.lr)
        trust = confidence(torch, stay, residual, residual, contrast, floor, preset)
        moved = _moved(self.state.age, (self.cells / 4).round().long(), CELL, edge=0.0)
        age = next_age(torch, moved, trust)
        weight = history_share(torch, age, preset, stay) * trust
        small = functional.interpolate(
            self.difference[None, None], tuple(self.lr.shape), mode="area"
        )
        small = functional.pad(small, (2, 2, 2, 2), mode="reflect")
        mean = _resized(functional.avg_pool2d(small, 5, 1)[0], self.y.shape)[0]
        detail = (self.difference - mean).clamp(-preset.bound, preset.bound)
        # Rounded, for the CPU remembers bytes.
        out = self.y + _resized(weight[None], self.y.shape)[0] * detail
        return age, (out.clamp(0, 255).round(),)


def _cells_step(state: _State, lr: Tensor, planes: tuple[Tensor, ...], flow: Tensor) -> _CellsStep:
    y, last = planes[0], state.last[0]
    scale = y.shape[0] // lr.shape[0]
    rows, columns = (-(-side // CELL) for side in lr.shape)
    means = functional.interpolate(flow.permute(2, 0, 1)[None], (rows, columns), mode="area")
    cells = (means[0].permute(1, 2, 0) * 4).round().long()
    halves = (cells * scale + (scale & 1)) >> 1
    whole, odd = halves >> 1, halves & 1
    first, second = (_moved(last, steps, CELL * scale) for steps in (whole, whole + odd))
    difference = ((first + second) / 2).round() - y
    small = functional.interpolate(difference[None, None], tuple(lr.shape), mode="area")[0, 0]
    return _CellsStep(state, lr, y, cells, difference, _residual(small, torch.zeros_like(small)))


def _moved(image: Tensor, steps: Tensor, side: int, *, edge: float | None = None) -> Tensor:
    """The image with each cell of `side` pixels taken from `steps` (rows, columns, 2) away.

    Outside the picture its border goes on, or `edge` is read.
    """
    height, width = image.shape
    y = torch.arange(height, device=image.device)[:, None] + _spread(
        steps[..., 1], side, image.shape
    )
    x = torch.arange(width, device=image.device)[None, :] + _spread(
        steps[..., 0], side, image.shape
    )
    moved = image[y.clamp(0, height - 1), x.clamp(0, width - 1)]
    if edge is None:
        return moved
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return torch.where(inside, moved, torch.full_like(moved, edge))


def _spread(cells: Tensor, side: int, shape: torch.Size) -> Tensor:
    """One value a cell -> one a pixel."""
    whole = cells.repeat_interleave(side, 0).repeat_interleave(side, 1)
    return whole[: shape[0], : shape[1]]


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
    side = 2 * reach + 1
    start = flow.round()
    errors = _block_errors(now, before, start + _offsets(reach, now.device, now.dtype))
    # A hair in favour of no change keeps flat areas from wandering.
    errors[side * side // 2] -= 0.01
    best = errors.argmin(0)
    x, y = best % side, best // side

    def at(row: Tensor, column: Tensor) -> Tensor:
        index = (row.clamp(0, side - 1) * side + column.clamp(0, side - 1))[None]
        return errors.gather(0, index)[0]

    here = at(y, x)
    sub_x = _parabola(at(y, x - 1), here, at(y, x + 1)) * ((x > 0) & (x < side - 1))
    sub_y = _parabola(at(y - 1, x), here, at(y + 1, x)) * ((y > 0) & (y < side - 1))
    found = start + torch.stack([x - reach + sub_x, y - reach + sub_y], -1)
    return _median(found)


@cache
def _offsets(reach: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """All candidates around a start, (n, 1, 1, 2) as x, y; copied to the device once."""
    steps = range(-reach, reach + 1)
    offsets = [(dx, dy) for dy in steps for dx in steps]
    return torch.tensor(offsets, device=device, dtype=dtype)[:, None, None]


def _block_errors(now: Tensor, before: Tensor, flows: Tensor) -> Tensor:
    """Mean difference of 5x5 blocks for each of n fields (n, H, W, 2) -> (n, H, W)."""
    moved = functional.grid_sample(
        before.expand(flows.shape[0], 1, -1, -1),
        _places(flows),
        "bilinear",
        padding_mode="border",
        align_corners=True,
    )
    difference = (now - moved).abs()
    edged = functional.pad(difference, (2, 2, 2, 2), mode="replicate")
    return functional.avg_pool2d(edged, 5, 1)[:, 0]


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
    return functional.grid_sample(
        image[None, None],
        _places(flow[None]),
        mode,
        padding_mode="border",
        align_corners=True,
    )[0, 0]


def _places(flows: Tensor) -> Tensor:
    """Fields (n, H, W, 2) in pixels -> where they lead, as `grid_sample` counts: -1 to 1."""
    height, width = flows.shape[1:3]
    y = torch.arange(height, device=flows.device, dtype=flows.dtype)[:, None]
    x = torch.arange(width, device=flows.device, dtype=flows.dtype)[None, :]
    return torch.stack(
        [(x + flows[..., 0]) * (2 / (width - 1)) - 1, (y + flows[..., 1]) * (2 / (height - 1)) - 1],
        -1,
    )
