"""The command line: the parser, and what an error becomes. One file a command."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from streamlift import __version__
from streamlift.cli.bench import add_bench
from streamlift.cli.doctor import add_doctor
from streamlift.cli.exit_codes import FAILED, INTERRUPTED, NO_FRAME, OK, TERMINATED, USAGE
from streamlift.cli.logs import set_up_logging
from streamlift.cli.publish import add_publish
from streamlift.cli.serve import add_serve
from streamlift.cli.upscale import add_upscale
from streamlift.cli.watch import add_watch
from streamlift.cli.weights import add_weights
from streamlift.cli.worker import add_worker
from streamlift.errors import ConfigError, StreamliftError

__all__ = ["FAILED", "INTERRUPTED", "NO_FRAME", "OK", "TERMINATED", "USAGE", "main"]


class _Terminated(SystemExit):
    """SIGTERM: unwinds as Ctrl-C does, through asyncio too, so that nothing half-made is left."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 ok, 1 failure, 2 usage or config, 3 no frame.

    A command that ends by itself gives 130 after Ctrl-C and 143 after SIGTERM; one that runs until
    it is told to end (`endless`) gives 0.
    """
    with _terminable():
        endless = False
        try:
            arguments = _parser().parse_args(argv)
            endless = arguments.endless
            set_up_logging(arguments.log_format, arguments.verbose)
            return int(arguments.run(arguments))
        except StreamliftError as error:
            print(f"streamlift: {_explained(error)}", file=sys.stderr)
            return USAGE if isinstance(error, ConfigError) else FAILED
        except KeyboardInterrupt:
            return OK if endless else INTERRUPTED
        except _Terminated:
            return OK if endless else TERMINATED


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises here, in the main thread; what was set before is set again."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not the main thread: whoever runs us there handles signals
        yield
        return
    try:
        yield
    finally:
        with suppress(_Terminated):
            signal.signal(signal.SIGTERM, before)


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
    parser.set_defaults(endless=False)
    parser.add_argument("--version", action="version", version=f"streamlift {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_serve(commands, common)
    add_worker(commands, common)
    add_publish(commands, common)
    add_watch(commands, common)
    add_upscale(commands, common)
    add_weights(commands, common)
    add_bench(commands, common)
    add_doctor(commands, common)
    return parser
