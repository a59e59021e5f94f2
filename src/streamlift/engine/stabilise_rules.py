"""The stabiliser's rules: how strongly it calms, and what it trusts.

The functions take `numpy` or `torch` as `xp`: the twin on a GPU shares this arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamlift.frames import Stabilise

__all__ = [
    "CUT_RESIDUAL",
    "MAX_AGE",
    "PRESETS",
    "Preset",
    "confidence",
    "history_share",
    "match_floor",
    "next_age",
    "stay_share",
]

CUT_RESIDUAL = 18.0
"""Mean residual after motion, in levels, above which a frame starts a new scene."""

MAX_AGE = 30.0
"""Frames after which a history is no better for being longer."""


@dataclass(frozen=True, slots=True)
class Preset:
    """How strongly a stream is calmed.

    `most` and `most_still`: largest share of the history in a pixel that moved and one that did
    not. `bound`: a pixel's detail from the history differs by at most so many levels; what differs
    more is new. `floor_share`: a moved pixel is fully trusted up to this many times the frame's
    median residual, between `least_floor` and `most_floor` levels, and `contrast_share` of the
    local contrast is forgiven, which comes from sampling alone where an edge moves; one that stood
    still, up to `still_floor`: it cannot be read from the wrong place. `cells`: whole cells move,
    by the bitstream's vectors where there are any (`stabilise_cells`); else every pixel by a flow
    search, down to full size if `fine_flow`. `chroma`: its planes are calmed too.
    """

    most: float
    most_still: float
    bound: float
    floor_share: float
    least_floor: float
    most_floor: float
    still_floor: float
    contrast_share: float
    cells: bool
    fine_flow: bool
    chroma: bool


PRESETS: dict[Stabilise, Preset] = {
    # Fitting models flicker little, and their chroma is interpolated.
    Stabilise.LITE: Preset(
        most=0.5,
        most_still=0.6,
        bound=10.0,
        floor_share=1.2,
        least_floor=0.7,
        most_floor=3.0,
        still_floor=2.5,
        contrast_share=0.05,
        cells=True,
        fine_flow=False,
        chroma=False,
    ),
    # Models that invent detail do so anew in every frame, in colour too, and by many levels. Their
    # history counts for more, and so does reading it from the right place.
    Stabilise.STRONG: Preset(
        most=0.8,
        most_still=0.8,
        bound=255.0,
        floor_share=2.0,
        least_floor=0.7,
        most_floor=3.0,
        still_floor=4.0,
        contrast_share=0.06,
        cells=False,
        fine_flow=True,
        chroma=True,
    ),
}


def match_floor(xp: Any, residual: Any, preset: Preset) -> Any:
    """Residual up to which a moved pixel is trusted, from the frame's median.

    A clean stream matches within half a level, so that a level tells of a wrong match; a coded or
    grainy one does not match better anywhere, and has flicker to calm.
    """
    typical = preset.floor_share * xp.quantile(residual[::4, ::4], 0.5)
    return xp.clip(typical, preset.least_floor, preset.most_floor)


def confidence(
    xp: Any, stay: Any, moving: Any, still: Any, contrast: Any, floor: Any, preset: Preset
) -> Any:
    """Trust in the match, 0 to 1, from the residuals of moving and of standing still, in levels."""
    moving = moving - preset.contrast_share * contrast
    moved = _trust(xp, moving, floor)
    return moved + stay * (_trust(xp, still, preset.still_floor) - moved)


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
