"""Draws the docs' plots from recorded JSON: python -m scripts.plot [--from FOLDER] [--to FOLDER].

overload.json becomes overload.svg (delay, pictures and drops over a minute), picture.json becomes
picture.svg (picture gained against CPU time). `scripts.record` records both. Needs the train extra.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DATA = Path("docs/data")
IMAGES = Path("docs/images")
INK, SHOWN, LATE, DROPPED = "#333333", "#1f6fb2", "#c4521b", "#b0303a"
PROMISED_MS = 150.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="data", type=Path, default=DATA, help=f"default: {DATA}")
    parser.add_argument("--to", dest="images", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    # The same data give the same file, to the byte.
    mpl.rcParams.update({"svg.hashsalt": "streamlift", "font.size": 9, "axes.edgecolor": INK})
    arguments.images.mkdir(parents=True, exist_ok=True)
    drawn = 0
    for name, draw in (("overload", draw_overload), ("picture", draw_picture)):
        source = arguments.data / f"{name}.json"
        if not source.exists():
            print(f"{source} is not there: python -m scripts.record {name} {source}")
            continue
        figure = draw(json.loads(source.read_text(encoding="utf-8")))
        target = arguments.images / f"{name}.svg"
        figure.savefig(target, metadata={"Date": None}, bbox_inches="tight")
        print(target)
        drawn += 1
    if not drawn:
        raise SystemExit(f"nothing is recorded in {arguments.data}")


def draw_overload(found: dict[str, Any]) -> Figure:
    seconds, phase_s = found["seconds"], found["phase_s"]
    at = [one["second"] for one in seconds]
    figure = Figure(figsize=(7.5, 4.6))
    delay, frames = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    delay.plot(at, [one["p95_ms"] for one in seconds], color=LATE, label="95 % are faster")
    delay.plot(at, [one["p50_ms"] for one in seconds], color=SHOWN, label="half are faster")
    delay.axhline(PROMISED_MS, color=INK, linewidth=0.8, linestyle=":")
    delay.set_ylabel("delay, ms")
    delay.set_ylim(bottom=0)
    frames.plot(at, [one["shown"] for one in seconds], color=SHOWN, label="shown")
    dropped = [sum(one["dropped"].values()) for one in seconds]
    frames.bar(at, dropped, color=DROPPED, width=0.7, label="left out, counted")
    frames.set_ylabel("frames a second")
    frames.set_xlabel("seconds")
    frames.set_ylim(0, 32)
    for axes in (delay, frames):
        axes.axvspan(phase_s, 2 * phase_s, color="#00000010")
        axes.legend(loc="upper left", frameon=False, fontsize=8)
        _plain(axes)
    delay.set_title(f"{found['command']} streams in the grey part", loc="left", fontsize=9)
    _say_where(figure, found)
    return figure


def draw_picture(found: dict[str, Any]) -> Figure:
    kinds = list(dict.fromkeys(row["clips"] for row in found["rows"]))
    figure = Figure(figsize=(7.5, 3.6))
    every = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, kind in zip(every, kinds, strict=True):
        for row in (row for row in found["rows"] if row["clips"] == kind):
            calm = "lite" in row["method"]
            own = row["method"].startswith("compact")
            colour = (LATE if calm else SHOWN) if own else INK
            axes.plot(row["cpu_ms"], row["gained_db"], "s" if calm else "o", color=colour)
            axes.annotate(
                row["method"],
                (row["cpu_ms"], row["gained_db"]),
                xytext=(5, -3),
                textcoords="offset points",
                fontsize=7,
            )
        axes.axhline(0, color=INK, linewidth=0.8, linestyle=":")
        axes.set_title(f"{kind} clips", loc="left", fontsize=9)
        axes.set_xlabel("CPU ms a 512x512 frame, one thread")
        axes.set_ylabel("PSNR over bicubic, dB")
        axes.margins(x=0.25)
        axes.set_xlim(left=0)
        _plain(axes)
    figure.tight_layout()
    _say_where(figure, found, more=f", coded at {found['bitrate_bps'] / 1e6:g} Mbit/s")
    return figure


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _say_where(figure: Figure, found: dict[str, Any], more: str = "") -> None:
    figure.text(
        0.99,
        -0.02,
        f"{found['processor']}, {found['date']}{more}",
        ha="right",
        fontsize=7,
        color=INK,
    )


if __name__ == "__main__":
    main()
