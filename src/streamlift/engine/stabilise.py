"""The temporal stabiliser: calms the detail of any upscaler's output, without delay, without blur.

It sees the low-resolution luma of every frame and the high-resolution picture made from it. The
last output is moved along the motion between low-resolution frames, and where the match is good
its *detail* replaces part of the new picture's detail. Brightness never lags, because the local
mean of the difference is left out. Two ways share the rules (`stabilise_rules`): cells moved by
the bitstream's vectors (`stabilise_cells`), and pixels by a flow search (`stabilise_flow`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from streamlift.clock import VIDEO_CLOCK_HZ
from streamlift.codec.motion import motion_since
from streamlift.engine.stabilise_cells import (
    CellHistory,
    cells_of_flow,
    contrast_of,
    smoothed,
)
from streamlift.engine.stabilise_flow import F32, FlowHistory, choose_motion, flow_search
from streamlift.engine.stabilise_rules import CUT_RESIDUAL, PRESETS, Preset
from streamlift.errors import MediaError
from streamlift.frames import Motion, Plane, Planes, Size, Stabilise

__all__ = ["CUT_RESIDUAL", "PRESETS", "Preset", "Stabiliser"]

GAP_TICKS = VIDEO_CLOCK_HZ // 2

SMALLEST_FLOW_SIDE = 32
"""The flow search works on 8x8 patches at small sizes; smaller pictures are taken as still."""


class Stabiliser:
    """One stream's stabiliser. Owned by one thread; all its memory is here.

    `half_flow` is the cheaper way to search for motion where the bitstream tells none: at half
    size, less exact. It and `strength` may be changed between frames. `cuts` counts the scene
    cuts so far.
    """

    def __init__(self, strength: Stabilise, *, half_flow: bool = False) -> None:
        self.half_flow = half_flow
        self.cuts = 0
        self.strength = strength
        self._flows = {fine: flow_search(fine=fine) for fine in (False, True)}
        self._state: _State | None = None

    def apply(
        self, lr_luma: Plane, hr: Planes, *, pts: int | None = None, motion: Motion | None = None
    ) -> Planes:
        """Stabilise one frame: LR luma (H, W) and the HR picture made from it.

        The HR size is any whole multiple of (H, W). The first frame, one after a change of size,
        a gap of over 0.5 s between `pts` (90 kHz) or a scene cut is returned as it is. `motion` is
        what the bitstream said; it is used if it leads to the frame before. Raises MediaError when
        the HR size is no multiple of the LR size.
        """
        preset = PRESETS.get(self.strength)
        if preset is None:
            self._state = None
            return hr
        # The flow search refuses rows with padding.
        lr_luma = np.ascontiguousarray(lr_luma)
        state = self._state
        if state is None or not state.fits(lr_luma, hr, preset) or state.gap_before(pts):
            self._state = _State.start(lr_luma, hr, preset, pts)
            return hr
        if preset.cells:
            out = self._by_cells(lr_luma, hr, state, preset, motion)
        else:
            out = self._by_flow(lr_luma, hr, state, preset)
        if out is None:
            self.cuts += 1
            self._state = _State.start(lr_luma, hr, preset, pts)
            return hr
        state.lr, state.pts = lr_luma, pts
        return out

    def reset(self) -> None:
        """Forget everything: the next frame is returned as it is."""
        self._state = None

    def _by_cells(
        self, lr: Plane, hr: Planes, state: _State, preset: Preset, motion: Motion | None
    ) -> Planes | None:
        """None at a scene cut."""
        history = state.history
        assert isinstance(history, CellHistory)
        size = Size(lr.shape[1], lr.shape[0])
        told = None if motion is None else motion_since(motion, state.pts, size)
        if told is not None:
            # Where no vector is known the picture may well have stood still; the residual tells.
            cells = smoothed(told[0])
        else:
            cells = cells_of_flow(self._motion(lr, state.lr, fine=preset.fine_flow))
        found = history.compare(hr.y, cells)
        if found.residual_mean > CUT_RESIDUAL:
            return None
        return Planes(history.blend(hr.y, found, contrast_of(lr), preset), hr.u, hr.v)

    def _by_flow(self, lr: Plane, hr: Planes, state: _State, preset: Preset) -> Planes | None:
        """None at a scene cut."""
        history = state.history
        assert isinstance(history, FlowHistory)
        fine = preset.fine_flow and not self.half_flow
        motion = choose_motion(lr, state.lr, self._motion(lr, state.lr, fine=fine))
        if motion.residual_mean > CUT_RESIDUAL:
            return None
        # Bicubic, for a linear lookup blurs a little in every frame.
        lookup = cv2.INTER_LINEAR if self.half_flow else cv2.INTER_CUBIC
        return history.advance(lr, hr, motion, preset, lookup)

    def _motion(self, lr: Plane, before: Plane, *, fine: bool) -> F32:
        """Motion (H, W, 2) in pixels: where in `before` each pixel of `lr` comes from."""
        search = self._flows[fine]
        if self.half_flow:
            height, width = lr.shape
            half = (width // 2, height // 2)
            lr, before = (
                cast(Plane, cv2.resize(p, half, interpolation=cv2.INTER_AREA)) for p in (lr, before)
            )
            if min(half) < SMALLEST_FLOW_SIDE:
                return np.zeros((height, width, 2), np.float32)
            flow = cv2.resize(search.calc(lr, before, None), (width, height))  # type: ignore[call-overload]
            flow *= 2
            return cast(F32, flow)
        if min(lr.shape) < SMALLEST_FLOW_SIDE:
            return np.zeros((*lr.shape, 2), np.float32)
        return cast(F32, search.calc(lr, before, None))  # type: ignore[call-overload]


@dataclass(slots=True, eq=False)
class _State:
    """What is remembered of one stream between frames."""

    lr: Plane
    size: Size
    pts: int | None
    history: CellHistory | FlowHistory
    chroma: bool

    @classmethod
    def start(cls, lr: Plane, hr: Planes, preset: Preset, pts: int | None) -> _State:
        height, width = lr.shape
        scale = hr.size.width // width
        if hr.size != Size(width * scale, height * scale):
            raise MediaError(
                "the stabiliser needs an output that is a whole multiple of the input",
                found=str(hr.size),
                expected=f"a multiple of {width}x{height}",
            )
        planes = hr.each() if preset.chroma else (hr.y,)
        by_cells = preset.cells
        history = CellHistory.start(hr.y, scale) if by_cells else FlowHistory.start(lr, planes)
        return cls(lr, hr.size, pts, history, preset.chroma)

    def fits(self, lr: Plane, hr: Planes, preset: Preset) -> bool:
        same_way = preset.cells == isinstance(self.history, CellHistory)
        same_size = lr.shape == self.lr.shape and hr.size == self.size
        return same_size and same_way and preset.chroma == self.chroma

    def gap_before(self, pts: int | None) -> bool:
        if pts is None or self.pts is None:
            return False
        return not 0 < pts - self.pts <= GAP_TICKS
