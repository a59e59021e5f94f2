"""The quality tables of every shipped tier: nine synthetic clips, and files given as truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from streamlift.engine.quality_bench import BITRATES, synthetic_clips, upscaler_method
from streamlift.frames import Plane, Stabilise
from streamlift.quality import (
    Clip,
    Method,
    bicubic,
    flicker_rows,
    lanczos,
    quality_table,
    read_clip,
    render_flicker,
    render_table,
    write_crops,
)
from streamlift.quality.coding import luma_planes
from streamlift.quality.synthetic import Layer, Motion, render_scene, synthetic_clip
from streamlift.quality.table import Row
from streamlift.upscalers.compact import Compact, Precision, Tier

__all__ = ["draw_crops", "every_method", "report"]


def report(paths: Sequence[Path], *, frames: int, tiers: Sequence[Tier]) -> str:
    """Markdown: tables on the synthetic clips, on the given files, and exact flicker."""
    methods = every_method(tiers)
    synthetic = synthetic_clips(frames=24)
    parts = ["## Nine synthetic clips\n", render_table(quality_table(synthetic, methods, BITRATES))]
    if paths:
        clips = [read_clip(path, frames=frames) for path in paths]
        rows = quality_table(clips, methods, BITRATES)
        parts += ["## Given clips\n", render_table(rows), by_clip(rows)]
    stills = [_first(clip) for clip in synthetic]
    parts += ["## Exact flicker, first frames of the synthetic clips, 1.5 Mbit/s\n"]
    parts += [render_flicker(flicker_rows(stills, methods))]
    return "\n".join(parts)


def every_method(tiers: Sequence[Tier]) -> list[Method]:
    """Bicubic, Lanczos, each tier in 8 bits; tier s in float32 and with the stabiliser too."""
    methods = [bicubic(), lanczos()]
    for tier in tiers:
        int8 = Compact(tier, Precision.INT8)
        methods.append(upscaler_method(int8, name=f"compact {tier}"))
        if tier is Tier.S:
            fp32 = Compact(tier, Precision.FP32)
            methods.append(upscaler_method(fp32, name=f"compact {tier} fp32"))
            methods += [
                upscaler_method(int8, strength, name=f"compact {tier}")
                for strength in (Stabilise.LITE, Stabilise.STRONG)
            ]
    return methods


def draw_crops(folder: Path) -> None:
    """Crops for a person to compare: a synthetic clip, and a photograph never trained on."""
    from skimage import data

    small = Compact(Tier.S, Precision.INT8)
    methods = [
        bicubic(),
        lanczos(),
        upscaler_method(small, name="compact s"),
        upscaler_method(small, Stabilise.LITE, name="compact s"),
    ]
    photograph: Plane = cast(Any, data).coins()
    coins = Layer(photograph, Motion(velocity=(0.7, 0.4)), scale=1.3)
    pictures = [render_scene([coins], side=384, frame=t) for t in range(16)]
    panned = Clip("coins", tuple(luma_planes(y) for y in pictures))
    page = Clip("page", tuple(luma_planes(y) for y in synthetic_clip("page", frames=16)))
    for clip, corner in ((panned, (120, 120)), (page, (180, 190))):
        path = folder / f"compact-{clip.name}.png"
        write_crops(path, clip, methods, bitrate_bps=3_000_000, frame=15, corner=corner, side=128)


def by_clip(rows: Sequence[Row]) -> str:
    """dB over bicubic for each clip, a line per rate and method."""
    clips = list(dict.fromkeys(row.clip for row in rows))
    base = {(r.clip, r.bitrate_bps): r.psnr for r in rows if r.method == "bicubic"}
    lines: dict[tuple[int | None, str], list[str]] = {}
    for row in rows:
        gain = row.psnr - base[row.clip, row.bitrate_bps]
        lines.setdefault((row.bitrate_bps, row.method), []).append(f"{gain:+.2f}")
    table = [f"| dB over bicubic | {' | '.join(clips)} |", "|" + " --- |" * (len(clips) + 1)]
    for (rate, method), cells in lines.items():
        title = "uncompressed" if rate is None else f"{rate / 1e6:g} Mbit/s"
        table.append(f"| {title}, {method} | {' | '.join(cells)} |")
    return "\n".join(table) + "\n"


def _first(clip: Clip) -> Plane:
    return np.ascontiguousarray(clip.frames[0].y)
