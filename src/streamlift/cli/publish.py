"""`streamlift publish`: sends a file or the built-in scene by WHIP."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import Any

from streamlift.cli.arguments import TOKEN_VARIABLE, bitrate, positive, size
from streamlift.cli.exit_codes import NO_FRAME, OK
from streamlift.cli.interruption import run_until_told
from streamlift.clock import MonotonicClock
from streamlift.errors import ConfigError

__all__ = ["add_publish"]

_RETRY_S = 1.0


def add_publish(commands: Any, common: argparse.ArgumentParser) -> None:
    publish = commands.add_parser("publish", parents=[common], help="publish a video by WHIP")
    publish.add_argument("source", nargs="?", type=Path, help="video file")
    publish.add_argument("url", help="WHIP address, e.g. http://127.0.0.1:8080/whip/mine")
    publish.add_argument("--demo", action="store_true", help="the built-in moving scene")
    publish.add_argument("--loop", action="store_true", help="play the file over and over")
    publish.add_argument("--size", type=size, help="WIDTHxHEIGHT (default: the file's, or 512x512)")
    publish.add_argument(
        "--fps", type=positive, help="frames a second (default: the file's, or 25)"
    )
    publish.add_argument("--bitrate", type=bitrate, default=4_000_000, help="bits a second")
    publish.add_argument("--stamp", action="store_true", help="draw frame number and time")
    publish.add_argument("--burst", type=int, default=1, metavar="N", help="N frames at once")
    publish.add_argument("--seconds", type=positive, help="stop after so long")
    publish.add_argument("--wait", action="store_true", help="keep trying to reach the server")
    publish.add_argument("--token", help=f"bearer token (default: ${TOKEN_VARIABLE})")
    publish.set_defaults(run=_publish)


def _publish(arguments: argparse.Namespace) -> int:
    if (arguments.source is None) == (not arguments.demo):
        raise ConfigError("give a video file, or --demo, and then the WHIP address")
    if arguments.burst < 1:
        raise ConfigError("--burst must be at least 1", found=arguments.burst)
    return run_until_told(_publish_until_done(arguments))


async def _publish_until_done(arguments: argparse.Namespace) -> int:
    from streamlift.media.files.clips import clip_rate
    from streamlift.media.files.scene import SCENE_FPS, SCENE_SIZE
    from streamlift.media.remote.client import WhipClient
    from streamlift.media.remote.http import Unreachable

    clock = MonotonicClock()
    frame_size, fps = SCENE_SIZE, SCENE_FPS
    if arguments.source is not None:
        frame_size, fps = clip_rate(arguments.source)
    frame_size, fps = arguments.size or frame_size, arguments.fps or fps
    client = WhipClient(frame_size, fps, arguments.bitrate, clock=clock)

    def live() -> None:
        print(f"publishing {frame_size} at {fps:g} fps to {arguments.url}", flush=True)

    try:
        async with asyncio.timeout(arguments.seconds):
            while True:
                try:
                    reason = await client.run(
                        arguments.url,
                        arguments.token or os.environ.get(TOKEN_VARIABLE),
                        _source(arguments, frame_size, fps, clock),
                        on_live=live,
                    )
                except Unreachable:
                    if not arguments.wait:
                        raise
                    await asyncio.sleep(_RETRY_S)
                    continue
                print(f"ended: {reason}", flush=True)
                return OK if client.sent else NO_FRAME
    except TimeoutError:
        return OK if client.sent else NO_FRAME


def _source(arguments: argparse.Namespace, frame_size: Any, fps: float, clock: Any) -> Any:
    """Something that comes round again is coded once, unless every picture is stamped anew."""
    from streamlift.media.files.clips import clip_pictures, paced
    from streamlift.media.files.coded_loop import CodedLoop
    from streamlift.media.files.scene import scene_pictures, scene_round

    path, burst = arguments.source, arguments.burst
    again = path is None or arguments.loop
    if again and not arguments.stamp:

        def once() -> Any:
            if path is None:
                return scene_round(frame_size)
            return clip_pictures(path, frame_size, loop=False)

        return CodedLoop(once, frame_size, fps, arguments.bitrate, clock=clock, burst=burst)
    pictures = (
        scene_pictures(frame_size)
        if path is None
        else clip_pictures(path, frame_size, loop=arguments.loop)
    )
    return paced(pictures, fps, clock=clock, stamp=arguments.stamp, burst=burst)
