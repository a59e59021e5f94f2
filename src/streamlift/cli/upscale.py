"""`streamlift upscale`: enlarges a file."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamlift.cli.arguments import fraction, result_size
from streamlift.cli.exit_codes import FAILED, OK
from streamlift.config import load_config
from streamlift.errors import ConfigError, WeightsError
from streamlift.frames import Stabilise
from streamlift.portable import go_first

if TYPE_CHECKING:
    from streamlift.offline import Progress
    from streamlift.upscalers import Upscaler

__all__ = ["add_upscale"]

_SHOW_EVERY_S = 0.2
_NICE = 15
_ALSO_X4 = ("bicubic", "basicvsrpp", "realbasicvsr")


def add_upscale(commands: Any, common: argparse.ArgumentParser) -> None:
    upscale = commands.add_parser("upscale", parents=[common], help="upscale a file")
    upscale.add_argument(
        "source", type=Path, help="video, image, animation, or numbered sequence in/%%04d.png"
    )
    upscale.add_argument("target", type=Path, help="the same; its suffix says what is made")
    upscale.add_argument("--backend", default=None, help="an upscaler, or one of --config's")
    upscale.add_argument("--model", type=Path, metavar="FILE", help="a checkpoint of your own")
    upscale.add_argument("--config", type=Path, help="YAML file whose backends can be named")
    upscale.add_argument("--stabilise", choices=[s.value for s in Stabilise], default="off")
    upscale.add_argument(
        "--scale", type=fraction, help="of the result, 1 to 8, e.g. 1.5 (default: the model's)"
    )
    upscale.add_argument("--size", type=result_size, help="WIDTHxHEIGHT of the result")
    upscale.add_argument("--device", default=None, help="cpu, cuda:0, or a pattern such as H100")
    upscale.add_argument(
        "--codec",
        choices=("h264", "hevc", "av1", "vp9"),
        help="of a video (default: the usual one of the container)",
    )
    upscale.add_argument(
        "--crf",
        type=int,
        help="video quality, 0 best; h264 and hevc to 51, av1 and vp9 to 63 (default: high)",
    )
    upscale.add_argument(
        "--hardware", action="store_true", help="encode on a graphics card where one opens"
    )
    upscale.add_argument("--fps", type=fraction, help="of numbered pictures (default 25)")
    upscale.add_argument(
        "--no-clobber", action="store_true", help="refuse when the target is there already"
    )
    upscale.add_argument(
        "--lenient", action="store_true", help="exit with 0 though the source was cut off"
    )
    upscale.add_argument("--report", type=int, metavar="BYTES", help=argparse.SUPPRESS)
    upscale.set_defaults(run=_upscale)


def _upscale(arguments: argparse.Namespace) -> int:
    from streamlift.offline import Options, upscale_file

    if arguments.size is not None and arguments.scale is not None:
        raise ConfigError("give --size or --scale, not both")
    if arguments.report is not None:
        _work_aside(arguments.report)
    upscaler, device = _model(arguments)
    options = Options(
        stabilise=Stabilise(arguments.stabilise),
        scale=arguments.scale,
        size=arguments.size,
        codec=arguments.codec,
        crf=arguments.crf,
        hardware=arguments.hardware,
        fps=arguments.fps or Fraction(25),
        clobber=not arguments.no_clobber,
        workers=None if arguments.report is None else 1,
    )
    shows = sys.stderr.isatty() or arguments.verbose
    result = upscale_file(
        arguments.source,
        arguments.target,
        upscaler,
        device=device,
        options=options,
        progress=_bar() if shows else None if arguments.report is None else _reports(),
    )
    if shows:
        print(file=sys.stderr)
    if arguments.report is not None:
        print(json.dumps({"pictures": result.pictures, "warnings": result.warnings}), flush=True)
    for line in result.warnings:
        print(f"streamlift: warning: {line}", file=sys.stderr)
    print(f"{arguments.target}: {result.pictures} pictures")
    if result.cut_off is None:
        return OK
    if arguments.lenient:
        print(f"streamlift: warning: {result.cut_off}", file=sys.stderr)
        return OK
    print(
        f"streamlift: {result.cut_off}; the result holds what was there "
        "(--lenient takes that for success)",
        file=sys.stderr,
    )
    return FAILED


def _model(arguments: argparse.Namespace) -> tuple[Upscaler, str]:
    """The upscaler that is meant, and the device it runs on."""
    from streamlift.engine import accelerators, resolve_device
    from streamlift.upscalers import create_upscaler

    if arguments.model is not None:
        if arguments.backend is not None or arguments.config is not None:
            raise ConfigError("--model is a checkpoint by itself: leave --backend and --config out")
        device = resolve_device(arguments.device or "cpu", accelerators())
        return _own_model(device, arguments), device
    wanted = arguments.backend or "compact"
    backends = {b.name: b for b in load_config(arguments.config, os.environ).named_backends}
    backend = backends.get(wanted)
    settings = dict(backend.settings if backend else {})
    place = arguments.device or (backend.device if backend else "cpu")
    device = resolve_device(place, accelerators())
    name = backend.upscaler if backend else wanted
    if name == "compact":
        settings.setdefault("tier", "m")  # a file need not keep up with anything
    if name in ("basicvsrpp", "realbasicvsr"):
        settings.setdefault("use", "files")  # long windows: less work, and delay does not matter
    if "scale" in settings:
        return create_upscaler(name, device=device, settings=settings), device
    return _at_scale(name, device, settings, arguments), device


def _own_model(device: str, arguments: argparse.Namespace) -> Upscaler:
    """A checkpoint of our own architectures, or of one that spandrel reads if it is installed."""
    from streamlift.upscalers import create_upscaler

    settings = {"path": str(arguments.model)}
    try:
        return _at_scale("realesrgan-x2", device, settings, arguments)
    except WeightsError:
        if importlib.util.find_spec("spandrel") is None or not arguments.model.is_file():
            raise
        return create_upscaler("spandrel", device=device, settings=settings)


def _at_scale(
    name: str, device: str, settings: dict[str, Any], arguments: argparse.Namespace
) -> Upscaler:
    """The model at x4 where it can and more than x2 is wanted; a resampler does the rest."""
    from streamlift.upscalers import create_upscaler

    more = arguments.scale is not None and arguments.scale > 2
    if more and (name in _ALSO_X4 or name.startswith("realesrgan")):
        try:
            return create_upscaler(name, device=device, settings={**settings, "scale": 4})
        except ConfigError:
            pass  # the net has one scale of its own
    return create_upscaler(name, device=device, settings=settings)


def _work_aside(most_bytes: int) -> None:
    """For a service that has a file upscaled: after all else, and no longer than it lives."""

    def watch() -> None:
        with suppress(OSError, ValueError):
            while os.read(sys.stdin.fileno(), 4096):
                pass
        os._exit(FAILED)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(_NICE)
    go_first()
    if importlib.util.find_spec("resource") is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))


def _reports() -> Callable[[Progress], None]:
    """Progress as lines of JSON, a few times a second."""
    shown_s = 0.0

    def show(progress: Progress) -> None:
        nonlocal shown_s
        now_s = time.monotonic()
        if now_s - shown_s >= _SHOW_EVERY_S:
            shown_s = now_s
            told = {"pictures": progress.done, "total": progress.total, "fps": progress.fps}
            print(json.dumps(told), flush=True)

    return show


def _bar() -> Callable[[Progress], None]:
    """Draws progress on stderr, a few times a second."""
    shown_s = 0.0

    def show(progress: Progress) -> None:
        nonlocal shown_s
        now_s = time.monotonic()
        if progress.done == progress.total or now_s - shown_s >= _SHOW_EVERY_S:
            shown_s = now_s
            print(f"\r{bar(progress)}", end="", file=sys.stderr, flush=True)

    return show


def bar(progress: Progress) -> str:
    """One line: how much is done, how fast, and how long it will take."""
    width = 30
    if progress.total is None:
        return f"{progress.done} pictures, {progress.fps:.1f} a second"
    share = min(1.0, progress.done / max(1, progress.total))
    filled = "#" * int(share * width)
    left = "" if progress.left_s is None else f", {progress.left_s:.0f} s left"
    rate = f", {progress.fps:.1f} a second" if progress.fps else ""
    return f"[{filled:<{width}}] {progress.done}/{progress.total}{rate}{left}   "
