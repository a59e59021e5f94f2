"""The temporal stabiliser: calms the detail of any upscaler's output, without delay, without blur.

It sees the low-resolution luma of every frame and the high-resolution picture made from it.
Motion is estimated between low-resolution frames; the last output is moved along it, and where
the low-resolution residual says that the match is good, its *detail* replaces part of the new
picture's detail. Brightness never lags, because the local mean of the difference is left out.
The functions at the end take `numpy` or `torch` as `xp`: a GPU twin shares this arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamlift.clock import VIDEO_CLOCK_HZ
from streamlift.errors import MediaError
from streamlift.frames import Plane, Planes, Size, Stabilise

__all__ = [
    "CUT_RESIDUAL",
    "PRESETS",
    "Preset",
    "Stabiliser",
    "confidence",
    "history_share",
    "match_floor",
    "next_age",
    "stay_share",
]

F32 = npt.NDArray[np.float32]

CUT_RESIDUAL = 18.0
"""Mean residual after motion, in levels, above which a frame starts a new scene."""

GAP_TICKS = VIDEO_CLOCK_HZ // 2
MAX_AGE = 30.0
STILL_FLOOR = 4.0
HIGHEST_FLOOR = 3.0
"""Residuals in levels up to which a match is fully trusted: where nothing moved, and where it did.
A pixel that stood still cannot be read from the wrong place, so more is forgiven there."""

CONTRAST_SHARE = 0.06
"""Of the local contrast: so much residual comes from sampling alone where an edge moves."""

SMALLEST_FLOW_SIDE = 32
"""The flow search works on 8x8 patches at small sizes; smaller pictures are taken as still."""


@dataclass(frozen=True, slots=True)
class Preset:
    """How strongly a stream is calmed.

    `most` and `most_still`: largest share of the history in a pixel that moved and one that did
    not. `bound`: a pixel's detail from the history differs by at most so many levels; what differs
    X"""

    most: float
    most_still: float
    bound: float
    least_floor: float
    fine_flow: bool
    chroma: bool


PRESETS: dict[Stabilise, Preset] = {
    # Fitting models flicker little, and their chroma is interpolated.
    Stabilise.LITE: Preset(0.5, 0.6, bound=10.0, least_floor=0.7, fine_flow=False, chroma=False),
    # Models that invent detail do so anew in every frame, in colour too, and by many levels. Their
    # history counts for more, and so does reading it from the right place.
    Stabilise.STRONG: Preset(0.8, 0.8, bound=255.0, least_floor=0.7, fine_flow=True, chroma=True),
}


class Stabiliser:
    """One stream's stabiliser. Owned by one thread; all its memory is here.

    `half_flow` is the cheaper way: motion at half size, linear lookups; about 5 ms less at
    512x512, less exact. It and `strength` may be changed between frames. `cuts` counts
    the scene cuts so far.
    """

    def __init__(self, strength: Stabilise, *, half_flow: bool = False) -> None:
        self.half_flow = half_flow
        self.cuts = 0
        self.strength = strength
        self._flows = {fine: _flow_search(fine=fine) for fine in (False, True)}
        self._state: _State | None = None

    def apply(self, lr_luma: Plane, hr: Planes, *, pts: int | None = None) -> Planes:
        """Stabilise one frame: LR luma (H, W) and the HR picture made from it.

        The HR size is any whole multiple of (H, W). The first frame, one after a change of size,
        a gap of over 0.5 s between `pts` (90 kHz) or a scene cut is returned as it is. Raises
        MediaError when the HR size is no multiple of the LR size.
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
        flow = self._motion(lr_luma, state.lr, fine=preset.fine_flow and not self.half_flow)
        motion = _choose_motion(lr_luma, state.lr, flow)
        if motion.residual_mean > CUT_RESIDUAL:
            self.cuts += 1
            self._state = _State.start(lr_luma, hr, preset, pts)
            return hr
        out = state.advance(lr_luma, hr, motion, preset, self._lookup)
        state.pts = pts
        return out

    def reset(self) -> None:
        """Forget everything: the next frame is returned as it is."""
        self._state = None

    @property
    def _lookup(self) -> int:
        """How moved outputs are read. Bicubic: a linear lookup blurs a little in every frame."""
        return cv2.INTER_LINEAR if self.half_flow else cv2.INTER_CUBIC

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


@dataclass(frozen=True, slots=True, eq=False)
class _Motion:
    """The field chosen for a frame, and how well it explains it (levels, all LR size).

    `stay` is the share of standing still in the choice; `moving` and `still` are the residuals of
    either, `residual` that of the choice.
    """

    flow: F32
    stay: F32
    moving: F32
    still: F32
    residual: F32

    @property
    def residual_mean(self) -> float:
        return float(cv2.mean(self.residual)[0])


@dataclass(slots=True, eq=False)
class _State:
    """What is remembered of one stream between frames, and buffers that are used again."""

    lr: Plane
    age: F32
    histories: list[_History]
    size: Size
    pts: int | None

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
        planes = (hr.y, hr.u, hr.v) if preset.chroma else (hr.y,)
        return cls(
            lr=lr,
            age=np.zeros(lr.shape, np.float32),
            histories=[_History.start(plane) for plane in planes],
            size=hr.size,
            pts=pts,
        )

    def fits(self, lr: Plane, hr: Planes, preset: Preset) -> bool:
        same_size = lr.shape == self.lr.shape and hr.size == self.size
        return same_size and preset.chroma == (len(self.histories) > 1)

    def gap_before(self, pts: int | None) -> bool:
        if pts is None or self.pts is None:
            return False
        return not 0 < pts - self.pts <= GAP_TICKS

    def advance(
        self, lr: Plane, hr: Planes, motion: _Motion, preset: Preset, lookup: int
    ) -> Planes:
        floor = match_floor(np, motion.residual, preset.least_floor)
        trust = confidence(np, motion.stay, motion.moving, motion.still, _contrast(lr), floor)
        self.age = next_age(np, _warp(self.age, motion.flow), trust)
        weight = history_share(np, self.age, preset, motion.stay) * trust
        sources = (hr.y, hr.u, hr.v)
        calmed = [
            history.blend(plane, motion.flow, weight, preset.bound, lookup)
            for history, plane in zip(self.histories, sources, strict=False)
        ]
        self.lr = lr
        return Planes(*calmed, *sources[len(calmed) :])


@dataclass(slots=True, eq=False)
class _History:
    """The last output of one plane as float32, so that rounding does not add up over frames."""

    last: F32
    spare: F32

    @classmethod
    def start(cls, plane: Plane) -> _History:
        last = plane.astype(np.float32)
        return cls(last, np.empty_like(last))

    def blend(self, plane: Plane, flow: F32, weight: F32, bound: float, lookup: int) -> Plane:
        """D = moved last - plane, less its local mean, within +-bound; the new last is
        plane + weight * D."""
        height, width = plane.shape
        if plane.shape != weight.shape:
            flow = cast(F32, cv2.resize(flow * (width / weight.shape[1]), (width, height)))
            weight = cast(F32, cv2.resize(weight, (width, height)))
        detail = _warp(self.last, flow, into=self.spare, lookup=lookup)
        cv2.subtract(detail, plane, dst=detail, dtype=cv2.CV_32F)
        cv2.subtract(detail, _local_mean(detail), dst=detail)
        if bound < 255:
            np.clip(detail, -bound, bound, out=detail)
        cv2.multiply(detail, weight, dst=detail)
        out = cv2.add(plane, detail, dtype=cv2.CV_8U)
        cv2.add(plane, detail, dst=detail, dtype=cv2.CV_32F)
        self.last, self.spare = self.spare, self.last
        return cast(Plane, out)


def match_floor(xp: Any, residual: Any, least: float) -> Any:
    """Residual up to which a moved pixel is trusted: twice the frame's median, `least` to 3 levels.

    A clean stream matches within half a level, so that a level tells of a wrong match; a coded or
    grainy one does not match better anywhere, and has flicker to calm.
    """
    return xp.clip(2.0 * xp.quantile(residual[::4, ::4], 0.5), least, HIGHEST_FLOOR)


def confidence(xp: Any, stay: Any, moving: Any, still: Any, contrast: Any, floor: Any) -> Any:
    """Trust in the match, 0 to 1, from the residuals of moving and of standing still, in levels."""
    moving = moving - CONTRAST_SHARE * contrast
    moved = _trust(xp, moving, floor)
    return moved + stay * (_trust(xp, still, STILL_FLOOR) - moved)


def _trust(xp: Any, residual: Any, floor: Any) -> Any:
    """1 up to the floor, then falling like a Gaussian twice as wide."""
    excess = xp.clip(residual - floor, 0.0, None) * (0.5 / floor)
    return xp.exp(-(excess * excess))


def next_age(xp: Any, moved_age: Any, trust: Any) -> Any:
    """How many frames the history of a pixel holds: grows where the match is trusted."""
    return xp.clip(moved_age * trust + 1.0, None, MAX_AGE)


def history_share(xp: Any, age: Any, preset: Preset, stay: Any) -> Any:
    """Share of the history: that of a running mean, at most what the preset says."""
    most = preset.most + (preset.most_still - preset.most) * stay
    return xp.minimum(1.0 - 1.0 / (age + 1.0), most)


def stay_share(xp: Any, moving_residual: Any, still_residual: Any) -> Any:
    """1 where standing still explains a pixel better than moving by a quarter of a level or more,
    0 where it explains it worse by a tenth."""
    return xp.clip(3.0 * (moving_residual - still_residual) + 0.3, 0.0, 1.0)


def _flow_search(*, fine: bool) -> cv2.DISOpticalFlow:
    """DIS on sparse patches, without variational refinement, down to half size or, fine, to full.

    On panned and zoomed photographs half size kept 0.4 dB more than the preset FAST (which stops
    at a quarter and then smooths) for the same time, 3.2 CPU ms at 512x512. Full size costs 4 ms
    more; under `strong` it calmed pans by 57 instead of 47 % and kept 0.4 dB more.
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    search.setFinestScale(0 if fine else 1)
    search.setPatchStride(8 if fine else 6)
    search.setGradientDescentIterations(3 if fine else 8)
    search.setVariationalRefinementIterations(0)
    search.setUseMeanNormalization(False)
    return search


def _choose_motion(lr: Plane, before: Plane, flow: F32) -> _Motion:
    """Keep the better of "moved by the flow" and "stood still", softly, for every pixel.

    Standing still copies pixels exactly; a flow of a tenth of a pixel would blur them each frame.
    """
    moving = _residual(lr, _warp(before, flow))
    still = _residual(lr, before)
    stay = stay_share(np, moving, still)
    go = 1.0 - stay
    # OpenCV multiplies two channels several times faster than NumPy broadcasts one.
    flow = cast(F32, cv2.multiply(flow, cv2.merge([go, go]), dst=flow))
    return _Motion(flow, stay, moving, still, moving + (still - moving) * stay)


def _contrast(lr: Plane) -> Any:
    """Largest less smallest level of the 3x3 pixels around each, averaged over 5x5."""
    spread = cv2.morphologyEx(lr, cv2.MORPH_GRADIENT, _AROUND)
    return cv2.blur(spread, (5, 5)).astype(np.float32)


_AROUND = np.ones((3, 3), np.uint8)


def _residual(lr: Plane, moved: Plane) -> F32:
    difference = cv2.absdiff(lr, moved).astype(np.float32)
    return cast(F32, cv2.GaussianBlur(difference, (5, 5), 1.2, dst=difference))


def _local_mean(values: F32) -> F32:
    """A mean over about 10x10 pixels, taken at half size: half the cost of a 9x9 box."""
    height, width = values.shape
    small = cv2.resize(values, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
    return cast(F32, cv2.resize(cv2.blur(small, (5, 5), dst=small), (width, height)))


def _warp(image: Any, flow: F32, *, into: Any = None, lookup: int = cv2.INTER_LINEAR) -> Any:
    """Each pixel (x, y) of the result is the image at (x, y) + flow."""
    return cv2.remap(
        image,
        flow,
        cast(Any, None),
        lookup | cv2.WARP_RELATIVE_MAP,
        dst=into,
        borderMode=cv2.BORDER_REPLICATE,
    )
