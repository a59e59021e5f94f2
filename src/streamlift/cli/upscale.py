"""`streamlift upscale`: enlarges a file."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from streamlift.cli.exit_codes import OK
from streamlift.config import load_config
from streamlift.frames import Stabilise

__all__ = ["add_upscale"]


def add_upscale(commands: Any, common: argparse.ArgumentParser) -> None:
    upscale = commands.add_parser("upscale", parents=[common], help="upscale a file")
    upscale.add_argument(
        "source", type=Path, help="video, image, or numbered sequence in/%%04d.png"
    )
    upscale.add_argument("target", type=Path, help="video, image, or numbered sequence")
    upscale.add_argument("--backend", default="compact", help="an upscaler, or one of --config's")
    upscale.add_argument("--config", type=Path, help="YAML file whose backends can be named")
    upscale.add_argument("--stabilise", choices=[s.value for s in Stabilise], default="off")
    upscale.add_argument("--scale", type=int, choices=(2, 4), default=2)
    upscale.add_argument("--device", default=None, help="cpu, cuda:0, or a pattern such as H100")
    upscale.add_argument("--crf", type=int, default=14, help="video quality, 0 best to 51")
    upscale.set_defaults(run=_upscale)


def _upscale(arguments: argparse.Namespace) -> int:
    from streamlift.engine import accelerators, resolve_device
    from streamlift.offline import Progress, upscale_file
    from streamlift.upscalers import create_upscaler

    backends = {b.name: b for b in load_config(arguments.config, os.environ).named_backends}
    backend = backends.get(arguments.backend)
    settings = dict(backend.settings if backend else {})
    if arguments.scale != 2:
        settings["scale"] = arguments.scale
    wanted = arguments.device or (backend.device if backend else "cpu")
    device = resolve_device(wanted, accelerators())
    name = backend.upscaler if backend else arguments.backend
    if name == "compact":
        settings.setdefault("tier", "m")  # a file need not keep up with anything
    upscaler = create_upscaler(name, device=device, settings=settings)
    shown_s = 0.0

    def show(progress: Progress) -> None:
        nonlocal shown_s
        now_s = time.monotonic()
        if progress.done == progress.total or now_s - shown_s >= 0.2:
            shown_s = now_s
            print(f"\r{_bar(progress)}", end="", file=sys.stderr, flush=True)

    written = upscale_file(
        arguments.source,
        arguments.target,
        upscaler,
        device=device,
        stabilise=Stabilise(arguments.stabilise),
        crf=arguments.crf,
        progress=show if sys.stderr.isatty() or arguments.verbose else None,
    )
    print(file=sys.stderr)
    print(f"{arguments.target}: {written} pictures")
    return OK


def _bar(progress: Any) -> str:
    width = 30
    if progress.total is None:
        return f"{progress.done} frames, {progress.fps:.1f} fps"
    share = min(1.0, progress.done / max(1, progress.total))
    filled = "#" * int(share * width)
    left = "" if progress.left_s is None else f", {progress.left_s:.0f} s left"
    return f"[{filled:<{width}}] {progress.done}/{progress.total}, {progress.fps:.1f} fps{left}   "
