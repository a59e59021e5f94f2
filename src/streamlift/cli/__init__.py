"""The command line: serve, publish, watch, doctor and the rest."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from streamlift import __version__
from streamlift.clock import MonotonicClock
from streamlift.config import Config, load_config
from streamlift.errors import ConfigError, MediaError, StreamliftError
from streamlift.frames import Stabilise

__all__ = ["main"]

OK, FAILED, USAGE, NO_FRAME = 0, 1, 2, 3
_TOKEN = "STREAMLIFT_TOKEN"
_RETRY_S = 1.0
_LEAST_SIDE = 64

logger = logging.getLogger("streamlift")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 ok, 1 failure, 2 usage or config, 3 no frame."""
    arguments = _parser().parse_args(argv)
    _set_up_logging(arguments.log_format, arguments.verbose)
    try:
        return int(arguments.run(arguments))
    except StreamliftError as error:
        print(f"streamlift: {_explained(error)}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        return OK


def _explained(error: StreamliftError) -> str:
    """The message, with what was expected where the message itself does not say it."""
    text = str(error)
    if error.expected is not None and str(error.expected) not in text:
        text += f" (found {error.found}, expected {error.expected})"
    return text


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--log-format", choices=("text", "json"), default="text")
    common.add_argument("-v", "--verbose", action="store_true", help="log more")
    parser = argparse.ArgumentParser(
        prog="streamlift", description="Real-time upscaling of live WebRTC video."
    )
    parser.add_argument("--version", action="version", version=f"streamlift {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands, common)
    _add_publish(commands, common)
    _add_watch(commands, common)
    _add_upscale(commands, common)
    _add_weights(commands, common)
    _add_bench(commands, common)
    _add_doctor(commands, common)
    return parser


# ---- serve ----


def _add_serve(commands: Any, common: argparse.ArgumentParser) -> None:
    serve = commands.add_parser("serve", parents=[common], help="run the service")
    serve.add_argument("--config", type=Path, help="YAML file, see configs/")
    serve.add_argument("--host", help="address to bind (default 127.0.0.1)")
    serve.add_argument("--port", type=int, help="HTTP port (default 8080)")
    serve.add_argument("--save", metavar="DIR", help="record every stream to a file in DIR")
    serve.add_argument("--backend", help="default backend, by name")
    serve.add_argument(
        "--demo",
        nargs="?",
        const="",
        metavar="CLIP",
        help="also publish stream 'demo': CLIP over and over, or a built-in moving scene",
    )
    serve.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    import uvicorn

    from streamlift.api import check_exposure
    from streamlift.app import Demo, create_app
    from streamlift.engine import left_behind

    config = _load(arguments)
    check_exposure(config)
    if arguments.demo and not Path(arguments.demo).is_file():
        raise ConfigError(f"--demo: no such file: {arguments.demo}", found=arguments.demo)
    server = config.server
    _check_certificate(server.tls_cert, server.tls_key)
    listener = _bind(server.host, server.port)
    port = listener.getsockname()[1]
    scheme = "https" if server.tls_cert else "http"
    demo = None
    if arguments.demo is not None:
        demo = Demo(f"{scheme}://{_local_name(server.host)}:{port}", arguments.demo or None)
    app = create_app(config, demo=demo)

    class Server(uvicorn.Server):
        """Begins to drain at the signal itself, before open responses are waited for."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            # What is here now lives as long as the process. Out of the collector's sight, full
            # collections are short, and come early enough to free ended sessions (cycles).
            gc.collect()
            gc.freeze()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if hasattr(app.state, "service"):
                app.state.service.drain()
            super().handle_exit(sig, frame)

    web = Server(
        uvicorn.Config(
            app,
            ssl_certfile=server.tls_cert,
            ssl_keyfile=server.tls_key,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=5,
            lifespan="on",
        )
    )
    print(f"streamlift {__version__} at {scheme}://{_local_name(server.host)}:{port}", flush=True)
    if not config.auth.complete:
        logger.warning("no tokens are configured: only this machine can use the service")
    # When all is drained uvicorn raises the signal again; that must not look like a failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with listener, suppress(KeyboardInterrupt):
        web.run(sockets=[listener])
    code = OK if web.started else FAILED
    if left_behind():
        # All is closed but a model that does not return; see `left_behind`.
        sys.stdout.flush()
        logging.shutdown()
        os._exit(code)
    return code


def _load(arguments: argparse.Namespace) -> Config:
    overrides = {
        "server.host": arguments.host,
        "server.port": arguments.port,
        "default_backend": arguments.backend,
        "outputs.save": arguments.save,
    }
    given = {key: value for key, value in overrides.items() if value is not None}
    return load_config(arguments.config, os.environ, given)


def _check_certificate(cert: str | None, key: str | None) -> None:
    """Raises ConfigError when the files cannot be read or do not belong together."""
    for path in (cert, key):
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigError(f"cannot read {path}: no such file or no permission", found=path)
    if cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{cert} and {key} are no PEM certificate and its key: {error.reason or error}"
        ) from error


def _bind(host: str, port: int) -> socket.socket:
    """A listening socket; one clear line when the port is taken or not allowed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(
            f"cannot listen on {host}:{port}: {reason}; choose another --port"
        ) from error
    return listener


def _local_name(host: str) -> str:
    if host in ("0.0.0.0", "::", ""):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


# ---- publish ----


def _add_publish(commands: Any, common: argparse.ArgumentParser) -> None:
    publish = commands.add_parser("publish", parents=[common], help="publish a video by WHIP")
    publish.add_argument("source", nargs="?", type=Path, help="video file")
    publish.add_argument("url", help="WHIP address, e.g. http://127.0.0.1:8080/whip/mine")
    publish.add_argument("--demo", action="store_true", help="the built-in moving scene")
    publish.add_argument("--loop", action="store_true", help="play the file over and over")
    publish.add_argument(
        "--size", type=_size, help="WIDTHxHEIGHT (default: the file's, or 512x512)"
    )
    publish.add_argument(
        "--fps", type=_positive, help="frames a second (default: the file's, or 25)"
    )
    publish.add_argument("--bitrate", type=_bitrate, default=4_000_000, help="bits a second")
    publish.add_argument("--stamp", action="store_true", help="draw frame number and time")
    publish.add_argument("--burst", type=int, default=1, metavar="N", help="N frames at once")
    publish.add_argument("--seconds", type=_positive, help="stop after so long")
    publish.add_argument("--wait", action="store_true", help="keep trying to reach the server")
    publish.add_argument("--token", help=f"bearer token (default: ${_TOKEN})")
    publish.set_defaults(run=_publish)


def _publish(arguments: argparse.Namespace) -> int:
    if (arguments.source is None) == (not arguments.demo):
        raise ConfigError("give a video file, or --demo, and then the WHIP address")
    if arguments.burst < 1:
        raise ConfigError("--burst must be at least 1", found=arguments.burst)
    return asyncio.run(_publish_until_done(arguments))


async def _publish_until_done(arguments: argparse.Namespace) -> int:
    from streamlift.media.files.clips import clip_pictures, clip_rate, paced
    from streamlift.media.files.scene import SCENE_FPS, SCENE_SIZE, scene_pictures
    from streamlift.media.remote.client import WhipClient
    from streamlift.media.remote.http import Unreachable

    clock = MonotonicClock()
    size, fps = SCENE_SIZE, SCENE_FPS
    if arguments.source is not None:
        size, fps = clip_rate(arguments.source)
    size, fps = arguments.size or size, arguments.fps or fps
    stop = asyncio.current_task()
    assert stop is not None
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.cancel)
    client = WhipClient(size, fps, arguments.bitrate, clock=clock)

    def live() -> None:
        print(f"publishing {size} at {fps:g} fps to {arguments.url}", flush=True)

    try:
        async with asyncio.timeout(arguments.seconds):
            while True:
                if arguments.source is None:
                    pictures = scene_pictures(size)
                else:
                    pictures = clip_pictures(arguments.source, size, loop=arguments.loop)
                timed = paced(
                    pictures, fps, clock=clock, stamp=arguments.stamp, burst=arguments.burst
                )
                try:
                    reason = await client.run(
                        arguments.url,
                        arguments.token or os.environ.get(_TOKEN),
                        timed,
                        on_live=live,
                    )
                except Unreachable:
                    if not arguments.wait:
                        raise
                    await asyncio.sleep(_RETRY_S)
                    continue
                print(f"ended: {reason}", flush=True)
                return OK if client.sent else NO_FRAME
    except (TimeoutError, asyncio.CancelledError):
        return OK if client.sent else NO_FRAME


def _size(text: str) -> Any:
    from streamlift.frames import Size

    width, _, height = text.lower().partition("x")
    sides = [int(side) if side.isdecimal() else 0 for side in (width, height)]
    if any(side < _LEAST_SIDE or side % 2 for side in sides):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected WIDTHxHEIGHT, both even and at least {_LEAST_SIDE}"
        )
    return Size(*sides)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number above 0")
    return value


def _bitrate(text: str) -> int:
    if not text.isdecimal() or int(text) < 1000:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected bits a second, at least 1000")
    return int(text)


# ---- watch ----


def _add_watch(commands: Any, common: argparse.ArgumentParser) -> None:
    watch = commands.add_parser("watch", parents=[common], help="watch by WHEP and measure")
    watch.add_argument("url", help="WHEP address, e.g. http://127.0.0.1:8080/whep/demo")
    watch.add_argument("--seconds", type=_positive, default=10.0)
    watch.add_argument(
        "--scale", type=int, choices=range(1, 9), default=2, help="of the stamp, if there is one"
    )
    watch.add_argument("--json", action="store_true", help="print the figures as JSON")
    watch.add_argument("--token", help=f"bearer token (default: ${_TOKEN})")
    watch.set_defaults(run=_watch)


def _watch(arguments: argparse.Namespace) -> int:
    from streamlift.media.remote.measure import measure_whep

    token = arguments.token or os.environ.get(_TOKEN)
    figures = asyncio.run(
        measure_whep(
            arguments.url, token, arguments.seconds, scale=arguments.scale, clock=MonotonicClock()
        )
    )
    report = figures.as_json()
    if arguments.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:>16}: {value}")
    return OK if figures.frames else NO_FRAME


# ---- upscale ----


def _add_upscale(commands: Any, common: argparse.ArgumentParser) -> None:
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

    backends = {b.name: b for b in load_config(arguments.config, os.environ).backends}
    backend = backends.get(arguments.backend)
    settings = {k: v for k, v in (backend.settings if backend else {}).items() if k != "stabilise"}
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


# ---- weights ----


def _add_weights(commands: Any, common: argparse.ArgumentParser) -> None:
    weights = commands.add_parser("weights", parents=[common], help="download and check models")
    actions = weights.add_subparsers(required=True, metavar="ACTION")
    for action, text in (
        ("list", "what is known and what is here"),
        ("pull", "download and verify"),
        ("verify", "hash what is here"),
        ("path", "where files lie"),
    ):
        command = actions.add_parser(action, parents=[common], help=text)
        command.add_argument("names", nargs="*", metavar="NAME", help="upscaler, folder or file")
        command.add_argument("--allow-unpinned", action="store_true")
        command.set_defaults(run=_weights, action=action)


def _weights(arguments: argparse.Namespace) -> int:
    from streamlift.upscalers.weights import FileState, WeightStore, find_checkpoints

    store = WeightStore.from_environment(os.environ)
    chosen = find_checkpoints(arguments.names) if arguments.names else None
    action = arguments.action
    if action == "path" and chosen is None:
        print(store.directory)
        return OK
    if action == "pull" and chosen is None:
        raise ConfigError("say what to pull, e.g. streamlift weights pull realesrgan-x2")
    if action == "list":
        for status in store.statuses():
            if chosen is None or status.checkpoint in chosen:
                file = status.checkpoint
                size = f"{file.size / 1e6:8.1f} MB" if file.size else ""
                pin = "" if file.pinned else "  (unpinned)"
                print(f"{status.state:<10} {size:>12}  {file.name}  [{file.licence}]{pin}")
        return OK
    wanted = chosen or tuple(
        s.checkpoint for s in store.statuses() if s.state is not FileState.MISSING
    )
    for checkpoint in wanted:
        if action == "path":
            print(store.path(checkpoint))
        elif action == "pull":
            path = store.pull(
                checkpoint, allow_unpinned=arguments.allow_unpinned, progress=_show_download
            )
            print(f"\r{path}")
        else:
            store.verify(checkpoint, progress=_show_download)
            print(f"\rgood  {checkpoint.name}")
    return OK


def _show_download(checkpoint: Any, done: int, total: int | None) -> None:
    if sys.stderr.isatty():
        share = f"{100 * done / total:5.1f} %" if total else f"{done / 1e6:.1f} MB"
        print(f"\r{share}  {checkpoint.name}", end="", file=sys.stderr, flush=True)


# ---- bench ----


def _add_bench(commands: Any, common: argparse.ArgumentParser) -> None:
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
    return None if text == "0" else _bitrate(text)


def _bench(arguments: argparse.Namespace) -> int:
    from streamlift.engine import accelerators, measure_fps, resolve_device
    from streamlift.upscalers import create_upscaler

    device = resolve_device(arguments.device, accelerators())
    upscaler = create_upscaler(arguments.backend, device=device, settings={})
    if arguments.quality:
        from streamlift.bench import BITRATES, bench_quality

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
    started_s = time.process_time()
    fps = measure_fps(upscaler, device)
    cpu_s = time.process_time() - started_s
    print(f"{arguments.backend} on {device}: {fps:.1f} fps at 512x512 ({cpu_s:.1f} CPU s in all)")
    return OK


# ---- doctor ----


def _add_doctor(commands: Any, common: argparse.ArgumentParser) -> None:
    doctor = commands.add_parser("doctor", parents=[common], help="check this machine")
    doctor.add_argument("--config", type=Path)
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(run=_doctor, host=None, port=None, backend=None, save=None)


def _doctor(arguments: argparse.Namespace) -> int:
    from streamlift.doctor import examine

    report = examine(_load(arguments))
    if arguments.json:
        print(json.dumps(report.as_json()))
    else:
        for check in report.checks:
            print(f"{'ok ' if check.ok else 'BAD'}  {check.name:<12} {check.detail}")
    return OK if report.ok else FAILED


# ---- logging ----


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _set_up_logging(log_format: str, verbose: bool) -> None:
    output = logging.StreamHandler()
    if log_format == "json":
        output.setFormatter(_JsonFormatter())
    else:
        output.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        )
    logging.basicConfig(level=logging.INFO, handlers=[output], force=True)
    logging.getLogger("streamlift").setLevel(logging.DEBUG if verbose else logging.INFO)
    for noisy in ("aioice", "aiortc", "httpx", "httpcore", "libav", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
