"""The quality tables of every shipped tier: nine synthetic clips, and files given as truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from streamlift.bench import BITRATES, synthetic_clips, upscaler_method
from streamlift.frames import Plane, Stabilise
from streamlift.quality import (
    Clip,
    Method,
    bicubic,
    flicker_rows,
    lanczos,
    psnr,
    quality_table,
    read_clip,
    render_flicker,
    render_table,
    write_crops,
)
from streamlift.quality.coding import Coding, area_half, code_clip, luma_planes
from streamlift.quality.synthetic import Layer, Motion, render_scene, synthetic_clip
from streamlift.quality.table import Row
from streamlift.upscalers.compact import Compact, Precision, Tier
from streamlift.upscalers.compact.network import Network

__all__ = ["draw_crops", "every_method", "report"]

SYNTHETIC_FRAMES = 16


def report(paths: Sequence[Path], *, frames: int, tiers: Sequence[Tier]) -> str:
    """Markdown: tables on the synthetic clips, on the given files, exact flicker, precisions."""
    methods = every_method(tiers)
    synthetic = synthetic_clips(frames=SYNTHETIC_FRAMES)
    parts = ["### Nine synthetic clips\n"]
    parts += _tables(synthetic, methods)
    if paths:
        given = [read_clip(path, frames=frames) for path in paths]
        parts += ["### Given clips\n", *_tables(given, methods)]
    stills = [np.ascontiguousarray(clip.frames[0].y) for clip in synthetic]
    parts += ["### Exact flicker, first pictures of the synthetic clips\n"]
    parts += [render_flicker(flicker_rows(stills, methods))]
    parts += ["### 8 bits against float32, synthetic clips\n", precisions(synthetic, tiers)]
    return "\n".join(parts)


def every_method(tiers: Sequence[Tier]) -> list[Method]:
    """Bicubic, Lanczos, each tier in 8 bits; tier s with the stabiliser too."""
    methods = [bicubic(), lanczos()]
    for tier in tiers:
        upscaler = Compact(tier, Precision.INT8)
        methods.append(upscaler_method(upscaler, name=f"compact {tier}"))
        if tier is Tier.S:
            methods += [
                upscaler_method(upscaler, strength, name=f"compact {tier}")
                for strength in (Stabilise.LITE, Stabilise.STRONG)
            ]
    return methods


def precisions(clips: Sequence[Clip], tiers: Sequence[Tier]) -> str:
    """What 8 bits cost: PSNR against float32 in dB, mean over clips, and mean difference."""
    lines = [
        "| tier, rate | 8 bits - float32, dB | mean difference, levels |",
        "| --- | ---: | ---: |",
    ]
    for tier in tiers:
        fp32, int8 = (Network(tier, precision) for precision in Precision)
        for rate in (None, 1_500_000):
            losses, differences = [], []
            for clip in clips:
                small = [area_half(planes) for planes in clip.frames]
                coded = small if rate is None else code_clip(small, Coding(bitrate_bps=rate))
                for planes, truth in zip(coded[::4], clip.frames[::4], strict=True):
                    exact, quick = fp32.enlarge(planes.y), int8.enlarge(planes.y)
                    losses.append(psnr(quick, truth.y) - psnr(exact, truth.y))
                    differences.append(float(cv2.absdiff(quick, exact).mean()))
            name = "uncompressed" if rate is None else "1.5 Mbit/s"
            cells = f"{np.mean(losses):+.3f} | {np.mean(differences):.2f}"
            lines.append(f"| {tier}, {name} | {cells} |")
    return "\n".join(lines) + "\n"


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
    wires = Clip("wires", tuple(luma_planes(y) for y in synthetic_clip("wires", frames=16)))
    for clip, corner in ((panned, (120, 120)), (wires, (180, 190))):
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


def _tables(clips: Sequence[Clip], methods: Sequence[Method]) -> list[str]:
    rows = quality_table(clips, methods, BITRATES)
    return [render_table(rows), by_clip(rows)]
