"""`streamlift bench`: measures backends on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from streamlift.cli.arguments import bitrate
from streamlift.cli.exit_codes import OK
from streamlift.errors import ConfigError

__all__ = ["add_bench"]


def add_bench(commands: Any, common: argparse.ArgumentParser) -> None:
    bench = commands.add_parser("bench", parents=[common], help="measure backends on this machine")
    bench.add_argument("clips", nargs="*", type=Path, help="ground-truth videos for --quality")
    bench.add_argument("--quality", action="store_true", help="quality and flicker table")
    bench.add_argument("--backend", default="compact", help="upscaler")
    bench.add_argument("--device", default="cpu")
    bench.add_argument("--frames", type=int, default=48, help="frames a clip for --quality")
    bench.add_argument(
        "--bitrate",
        action="append",
        type=_coding,
        help="bits/s as of a 512x512@25 stream for --quality, 0 for uncompressed; may be repeated",
    )
    bench.set_defaults(run=_bench)


def _coding(text: str) -> int | None:
    """A bit rate, or None for no coding."""
    return None if text == "0" else bitrate(text)


def _bench(arguments: argparse.Namespace) -> int:
    from streamlift.bench import BITRATES, bench_quality, bench_speed
    from streamlift.engine import accelerators, resolve_device
    from streamlift.upscalers import create_upscaler

    device = resolve_device(arguments.device, accelerators())
    upscaler = create_upscaler(arguments.backend, device=device, settings={})
    if arguments.quality:
        bitrates = arguments.bitrate or BITRATES
        table = bench_quality(
            arguments.clips, upscaler=upscaler, frames=arguments.frames, bitrates=bitrates
        )
        print(table)
        return OK
    if arguments.clips or arguments.bitrate:
        rates = (f"--bitrate {rate or 0}" for rate in arguments.bitrate or ())
        given = [*map(str, arguments.clips), *rates]
        raise ConfigError(
            f"{', '.join(given)}: used with --quality only", found=given, expected="--quality"
        )
    speed = bench_speed(upscaler, device)
    print(
        f"{arguments.backend} on {device}: {speed.fps:.1f} fps at 512x512 "
        f"({speed.cpu_s:.1f} CPU s in all)"
    )
    return OK
