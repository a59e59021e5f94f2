"""Watching a stream by WHEP as numpy frames, connected again when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypedDict
from urllib.parse import urlsplit

from streamlift.client.keeping import Kept, PushState
from streamlift.clock import VIDEO_CLOCK_HZ, Clock, MonotonicClock
from streamlift.codec.rgb import Rgb, rgb_from_planes
from streamlift.errors import MediaError
from streamlift.frames import Frame
from streamlift.mailbox import Mailbox
from streamlift.media.remote.client import watch_whep
from streamlift.tasks import to_its_end
from streamlift.timeline import Timeline

__all__ = ["Picture", "WatchOptions", "Watching", "watch"]

QUEUE = 32


class WatchOptions(TypedDict, total=False):
    """What `watch` takes by name."""

    token: str | None
    queue: int
    wait: bool
    reconnect: bool


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """`rgb`: (H, W, 3) uint8. `pts` at 90 kHz, 0 for the first; it only rises, over connections
    too. `size`: width and height, which may change in mid-stream."""

    rgb: Rgb
    pts: int

    @property
    def time_s(self) -> float:
        """The same as `pts`, in seconds."""
        return self.pts / VIDEO_CLOCK_HZ

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.rgb.shape[:2]
        return width, height


class Watching:
    """An async iterator of Picture; made by `watch`."""

    def __init__(self, kept: Kept, url: str, token: str | None, queue: int, clock: Clock) -> None:
        self._kept = kept
        self._url = url
        self._token = token
        self._clock = clock
        self._frames: Mailbox[tuple[int, Frame]] = Mailbox(queue)
        self._line = Timeline()

    @property
    def state(self) -> PushState:
        """connecting, live, waiting (it will be tried again), refused, or closed."""
        return self._kept.state

    @property
    def reason(self) -> str:
        """Why it is in this state, "" if that goes without saying."""
        return self._kept.reason

    @property
    def connections(self) -> int:
        """How often media has begun to flow."""
        return self._kept.connections

    @property
    def dropped(self) -> int:
        """Pictures that were not fetched in time: the oldest go."""
        return self._frames.dropped

    def __aiter__(self) -> Watching:
        return self

    async def __anext__(self) -> Picture:
        """Raises why the connection was given up; StopAsyncIteration at the end of a session that
        is not connected again."""
        pts, frame = await anext(self._frames)
        rgb = await to_its_end(asyncio.to_thread(rgb_from_planes, frame.planes, frame.colour))
        return Picture(rgb, pts)

    async def once(self) -> str:
        """One connection, until it ends; returns why."""
        async with watch_whep(self._url, self._token, clock=self._clock) as (video, _):
            self._kept.live()
            self._line.restart()
            async for frame in video:
                self._frames.put((self._line.place(frame.pts, frame.arrived_s), frame))
        return "the server ended the session"

    def given_up(self) -> None:
        """What has come is read first, then the end or the error."""
        self._frames.end(None if self._kept.ended else self._kept.error)


@asynccontextmanager
async def watch(
    url: str,
    *,
    token: str | None = None,
    queue: int = QUEUE,
    wait: bool = False,
    reconnect: bool = True,
) -> AsyncIterator[Watching]:
    """Watch a WHEP address: `async with watch(url) as w: async for picture in w: picture.rgb`.

    Connected when the block begins; at its end the session is deleted. `queue`: so many pictures
    may wait to be fetched, then the oldest go, counted in `Watching.dropped`. `wait`: try until
    somebody publishes there; otherwise the first connection fails at once. `reconnect`: connect
    again after 1, 2, 4 .. 30 s when the session ends.

    Raises Unreachable, Refused (a wrong token, no WHEP there), Busy (no room), StreamError (nothing
    is published) or MediaError when no connection comes about; the iteration raises why it was
    given up later, and ends with the session without `reconnect`.
    """
    if queue < 1:
        raise MediaError("the queue must hold a picture", found=queue, expected="1 or more")
    clock = MonotonicClock()
    kept = Kept(f"watching {urlsplit(url).netloc}", clock=clock, wait=wait, reconnect=reconnect)
    watching = Watching(kept, url, token, queue, clock)

    async def run() -> None:
        await kept.run(watching.once)
        watching.given_up()

    connection = asyncio.create_task(run())
    try:
        await kept.first()
        yield watching
    finally:
        connection.cancel()
        await to_its_end(_ended(connection))
        kept.close()
        watching.given_up()  # whoever reads in a task of its own comes to the end


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.gather(task, return_exceptions=True)
