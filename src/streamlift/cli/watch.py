"""`streamlift watch`: plays a stream by WHEP and measures it."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from streamlift.cli.arguments import TOKEN_VARIABLE, positive
from streamlift.cli.exit_codes import NO_FRAME, OK
from streamlift.cli.interruption import run_until_told
from streamlift.clock import MonotonicClock

__all__ = ["add_watch"]


def add_watch(commands: Any, common: argparse.ArgumentParser) -> None:
    watch = commands.add_parser("watch", parents=[common], help="watch by WHEP and measure")
    watch.add_argument("url", help="WHEP address, e.g. http://127.0.0.1:8080/whep/demo")
    watch.add_argument("--seconds", type=positive, default=10.0)
    watch.add_argument(
        "--scale", type=int, choices=range(1, 9), default=2, help="of the stamp, if there is one"
    )
    watch.add_argument("--json", action="store_true", help="print the figures as JSON")
    watch.add_argument("--token", help=f"bearer token (default: ${TOKEN_VARIABLE})")
    watch.set_defaults(run=_watch)


def _watch(arguments: argparse.Namespace) -> int:
    return run_until_told(_watch_and_tell(arguments))


async def _watch_and_tell(arguments: argparse.Namespace) -> int:
    from streamlift.media.remote.measure import measure_whep

    token = arguments.token or os.environ.get(TOKEN_VARIABLE)
    figures = await measure_whep(
        arguments.url, token, arguments.seconds, scale=arguments.scale, clock=MonotonicClock()
    )
    report = figures.as_json()
    if arguments.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:>16}: {value}")
    return OK if figures.frames else NO_FRAME
