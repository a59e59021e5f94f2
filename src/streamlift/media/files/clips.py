"""Pictures to publish: a video file over and over, or a moving scene, at an even or bursty pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import av
import numpy as np

from streamlift.clock import VIDEO_CLOCK_HZ, Clock
from streamlift.codec.decoder import picture_of
from streamlift.errors import MediaError
from streamlift.frames import Planes, Size
from streamlift.stamp import draw_stamp

__all__ = ["clip_pictures", "clip_rate", "paced"]

_DEFAULT_FPS = 25.0


def clip_rate(path: Path) -> tuple[Size, float]:
    """Size and average frame rate of a clip's first video stream. Raises MediaError."""
    try:
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            rate = float(video.average_rate) if video.average_rate else _DEFAULT_FPS
            return Size(video.width, video.height), rate
    except (OSError, av.FFmpegError, IndexError) as error:
        raise MediaError(f"{path} is no readable video: {error}", found=str(path)) from error


def clip_pictures(path: Path, size: Size, *, loop: bool) -> Iterator[Planes]:
    """The clip's pictures scaled to `size`; again and again if `loop`. Raises MediaError."""
    while True:
        try:
            with av.open(str(path)) as container:
                for frame in container.decode(video=0):
                    scaled = frame.reformat(size.width, size.height, format="yuv420p")
                    yield _own(picture_of(scaled))
        except (OSError, av.FFmpegError) as error:
            raise MediaError(f"{path} is no readable video: {error}", found=str(path)) from error
        if not loop:
            return


async def paced(
    pictures: Iterator[Planes],
    fps: float,
    *,
    clock: Clock,
    stamp: bool = False,
    burst: int = 1,
) -> AsyncIterator[tuple[int, Planes]]:
    """Give out (pts, picture) at `fps`; with `burst` n, n at once every n frame times.

    With `stamp`, frame number and time are drawn in just before a picture is given out.
    A source that cannot keep up gives out late pictures at once, it never skips.
    """
    start_s = clock.now_s()
    number = 0
    while (planes := await asyncio.to_thread(next, pictures, None)) is not None:
        due_s = start_s + (number // burst) * burst / fps
        delay_s = due_s - clock.now_s()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        if stamp:
            draw_stamp(planes.y, number, clock.now_s())
        yield round(number * VIDEO_CLOCK_HZ / fps), planes
        number += 1


def _own(planes: Planes) -> Planes:
    """A copy that may be written to."""
    return Planes(*(np.array(p) for p in (planes.y, planes.u, planes.v)))
