"""Make data, train, export and evaluate the `compact` networks; `retrain` does it all.

From the repository's root: `python -m scripts.train_compact retrain`. Clips and checkpoints are
kept in `data/compact`, which git ignores; graphs go into the package.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch
from scripts.train_compact.data import DataPlan, load_clips, make_clips
from scripts.train_compact.evaluate import draw_crops, report
from scripts.train_compact.export import export, write_manifest
from scripts.train_compact.net import TIERS
from scripts.train_compact.train import U8, Schedule, load_trained, train

from streamlift.quality.coding import area_half, luma_planes
from streamlift.quality.synthetic import synthetic_clip
from streamlift.upscalers.compact import Precision, Tier
from streamlift.upscalers.compact.network import Network

BALANCE = 0.5 / 255
STEPS = {"xs": 60_000, "s": 150_000, "m": 90_000}
SCHEDULES = {
    tier: Schedule(
        tier,
        steps=STEPS[tier],
        warm_up=500,
        averaging=0.999,
        exact_share=0.2,
        square_share=0.35,
        balance=BALANCE,
        clean_share=0.35,
    )
    for tier in TIERS
}
TRAINING = {
    "sharp": DataPlan(clips=1600, seed=1000),
    "soft": DataPlan(clips=640, seed=5000, scales=(0.6, 1.8), blurs=(0.15, 1.3)),
    "published": DataPlan(
        clips=640, seed=9000, scales=(0.5, 1.6), blurs=(0.15, 1.0), published=True
    ),
    "varied": DataPlan(
        clips=960,
        seed=13_000,
        scales=(0.4, 1.8),
        blurs=(0.15, 1.4),
        published=True,
        later_photographs=True,
    ),
}
ROUNDED = {
    tier: replace(
        schedule,
        steps=6_000,
        seed=8,
        peak=2e-4,
        warm_up=200,
        exact_share=1.0,
        square_share=1.0,
        rounded=True,
    )
    for tier, schedule in SCHEDULES.items()
}
"""A second, short training of what the 8-bit graphs are made of."""

HELD = DataPlan(clips=24, seed=900_000)
GOLDEN = Path("tests/data/compact/golden.npz")
WEIGHTS = Path("src/streamlift/upscalers/compact/weights")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.train_compact", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--folder", type=Path, default=Path("data/compact"))
    parser.add_argument("--tier", action="append", choices=[*SCHEDULES], help="default: all")
    parser.add_argument(
        "--clip", action="append", type=Path, default=[], help="file to evaluate on"
    )
    parser.add_argument("--frames", type=int, default=48, help="frames of each such file")
    options = parser.parse_args()
    options.tier = options.tier or list(SCHEDULES)
    # One thread each: the numbers are per core, and another core makes the sums differ.
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    cv2.setNumThreads(1)
    COMMANDS[options.command](options)


def make_data(options: argparse.Namespace) -> None:
    """Clips to train on, and two dozen to log progress on."""
    for name, plan in TRAINING.items():
        make_clips(options.folder / name, plan)
    make_clips(options.folder / "held", HELD)


def train_tiers(options: argparse.Namespace) -> None:
    lr, hr = _training_clips(options.folder)
    held = load_clips(options.folder / "held")
    for tier in options.tier:
        whole, rounded = (options.folder / f"{tier}{part}.pt" for part in ("", "-int8"))
        train(lr, hr, held, SCHEDULES[tier], whole)
        train(lr, hr, held, ROUNDED[tier], rounded, start=whole)


def export_tiers(options: argparse.Namespace) -> None:
    """Write both graphs of each tier into the package, and the manifest."""
    WEIGHTS.mkdir(exist_ok=True)
    for tier in options.tier:
        trained = load_trained(options.folder / f"{tier}.pt")
        schedule = trained.schedule
        notes = {
            "tier": tier,
            "steps": str(schedule.steps),
            "seed": str(schedule.seed),
            "data_seeds": " ".join(str(plan.seed) for plan in TRAINING.values()),
            "revision": _revision(),
        }
        export(trained.net, WEIGHTS / f"{tier}-fp32.onnx", None, notes)
        rounded = load_trained(options.folder / f"{tier}-int8.pt")
        notes["steps"] += f" + {rounded.schedule.steps} rounded"
        export(rounded.net, WEIGHTS / f"{tier}-int8.onnx", rounded.calibration, notes)
    write_manifest(WEIGHTS)
    _write_golden()


def evaluate(options: argparse.Namespace) -> None:
    tiers = [Tier(tier) for tier in options.tier]
    print(f"{_processor()}, {os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}")
    print(report(options.clip, frames=options.frames, tiers=tiers))


def crops(options: argparse.Namespace) -> None:
    """The pictures of docs/quality.md."""
    draw_crops(Path("docs/images"))


def retrain(options: argparse.Namespace) -> None:
    for step in (make_data, train_tiers, export_tiers, evaluate):
        step(options)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "data": make_data,
    "train": train_tiers,
    "export": export_tiers,
    "evaluate": evaluate,
    "crops": crops,
    "retrain": retrain,
}


def _training_clips(folder: Path) -> tuple[U8, U8]:
    """All three kinds of clips: LR and HR pictures."""
    kinds = [load_clips(folder / name) for name in TRAINING]
    return np.concatenate([lr for lr, _ in kinds]), np.concatenate([hr for _, hr in kinds])


def _write_golden() -> None:
    """The output of every graph in the package for one tiny picture, for the tests."""
    lr = area_half(luma_planes(synthetic_clip("crowd", side=128, frames=1)[0])).y
    lr = np.ascontiguousarray(lr[:, 8:56])
    graphs = [p.stem for p in sorted(WEIGHTS.glob("*.onnx"))]
    outputs: dict[str, Any] = {}
    for graph in graphs:
        tier, _, precision = graph.partition("-")
        outputs[graph] = Network(Tier(tier), Precision(precision)).enlarge(lr)
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(GOLDEN, lr=lr, **outputs)


def _revision() -> str:
    result = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"


if __name__ == "__main__":
    main()
