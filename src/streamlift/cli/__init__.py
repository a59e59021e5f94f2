"""The command line: the parser, and what an error becomes. One file a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from streamlift import __version__
from streamlift.cli.bench import add_bench
from streamlift.cli.doctor import add_doctor
from streamlift.cli.exit_codes import FAILED, NO_FRAME, OK, USAGE
from streamlift.cli.logs import set_up_logging
from streamlift.cli.publish import add_publish
from streamlift.cli.serve import add_serve
from streamlift.cli.upscale import add_upscale
from streamlift.cli.watch import add_watch
from streamlift.cli.weights import add_weights
from streamlift.errors import ConfigError, StreamliftError

__all__ = ["FAILED", "NO_FRAME", "OK", "USAGE", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 ok, 1 failure, 2 usage or config, 3 no frame."""
    arguments = _parser().parse_args(argv)
    set_up_logging(arguments.log_format, arguments.verbose)
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
    add_serve(commands, common)
    add_publish(commands, common)
    add_watch(commands, common)
    add_upscale(commands, common)
    add_weights(commands, common)
    add_bench(commands, common)
    add_doctor(commands, common)
    return parser
