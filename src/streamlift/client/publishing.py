"""Publishing numpy frames by WHIP, for generators in Python: paced, coded, and connected again."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypedDict
from urllib.parse import urlsplit

import numpy.typing as npt

from streamlift.client.keeping import Kept, PushState
from streamlift.client.pacing import Pacer
from streamlift.clock import VIDEO_CLOCK_HZ, Clock, MonotonicClock
from streamlift.codec.opus import OPUS_HZ, OpusEncoder, stereo
from streamlift.codec.rgb import planes_from_rgb, rgb_levels
from streamlift.errors import MediaError
from streamlift.frames import Planes, Size
from streamlift.mailbox import Mailbox
from streamlift.media.remote.client import TimedPicture, WhipClient
from streamlift.tasks import to_its_end

__all__ = ["Publication", "PublishOptions", "publish"]

BITRATE_BPS = 4_000_000
QUEUE = 128
_UNCODED = 8
"""Pictures that wait for the encoder; at 16 a second half a second."""
_SOUND_JUMP = OPUS_HZ // 5
_ANY_SIZE = Size(512, 512)


class PublishOptions(TypedDict, total=False):
    """What `publish` takes by name."""

    token: str | None
    fps: float | None
    bitrate_bps: int
    sound_hz: int | None
    queue: int
    wait: bool
    reconnect: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    planes: Planes
    sound: npt.ArrayLike | None


class Publication:
    """A stream that is being published; made by `publish`."""

    def __init__(
        self, kept: Kept, client: WhipClient, fps: float | None, options: _Options
    ) -> None:
        self._kept = kept
        self._client = client
        self._options = options
        self._clock = options.clock
        self._pacer = Pacer(fps)
        self._waits_when_full = fps is not None
        self._queue: deque[_Waiting] = deque()
        self._came = asyncio.Event()
        self._went = asyncio.Event()
        self._pictures: Mailbox[TimedPicture] | None = None
        self._opus = None if options.sound_hz is None else OpusEncoder(options.sound_hz)
        self._sound_base: int | None = None
        self._first_due_s: float | None = None
        self._last_pts = -1
        self.dropped: Counter[str] = Counter()
        """Frames by reason: `full` (the oldest in the queue went), `not connected`, `encoder`."""

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
    def sent(self) -> int:
        """Pictures that went to the server."""
        return self._client.sent

    @property
    def queued(self) -> int:
        """Frames that wait for their time."""
        return len(self._queue)

    @property
    def rate_fps(self) -> float:
        """Frames a second at which they go out."""
        return self._pacer.rate_fps

    async def send(self, frame: npt.ArrayLike, sound: npt.ArrayLike | None = None) -> None:
        """Give one frame, and the sound that belongs to it. Several at once are paced out.

        `frame`: RGB (H, W, 3), uint8, or float from 0 to 1; sides even. It is copied. `sound`:
        (n,) or (n, 2) samples at `sound_hz`, int16, or float from -1 to 1; any n.

        Raises MediaError for what is no picture or no sound, and why the connection was given up.
        """
        self._kept.check()
        if sound is not None and self._opus is None:
            raise MediaError("sound needs its sample rate: publish(..., sound_hz=48000)")
        if sound is not None:
            sound = stereo(sound)  # refused here, not when its turn comes
        planes = await asyncio.to_thread(_planes, frame)
        while self._waits_when_full and len(self._queue) >= self._options.queue:
            self._went.clear()
            await self._went.wait()
            self._kept.check()
        if len(self._queue) >= self._options.queue:
            self._queue.popleft()
            self.dropped["full"] += 1
        self._pacer.arrived(len(self._queue), self._clock.now_s())
        self._queue.append(_Waiting(planes, sound))
        self._came.set()

    async def drain(self) -> None:
        """Wait until all frames given have gone out."""
        while self._queue:
            self._went.clear()
            await self._went.wait()

    async def once(self) -> str:
        """One connection, until it ends; returns why."""
        pictures: Mailbox[TimedPicture] = Mailbox(_UNCODED)

        def live() -> None:
            self._pictures = pictures
            self._sound_base = None
            self._kept.live()

        try:
            return await self._client.run(
                self._options.url, self._options.token, pictures, on_live=live
            )
        finally:
            self._pictures = None

    async def pace(self) -> None:
        """Give frames out when they are due, connected or not; until it is cancelled."""
        while True:
            while not self._queue:
                self._came.clear()
                await self._came.wait()
            due_s = self._pacer.next_due_s(self._clock.now_s())
            await self._options.sleep(due_s - self._clock.now_s())
            if not self._queue:
                continue
            waiting = self._queue.popleft()
            await self._give(waiting, due_s)
            self._went.set()

    async def _give(self, waiting: _Waiting, due_s: float) -> None:
        if self._first_due_s is None:
            self._first_due_s = due_s
        at_s = due_s - self._first_due_s
        if self._pictures is None:
            self.dropped["not connected"] += 1
            return
        self._last_pts = max(self._last_pts + 1, round(at_s * VIDEO_CLOCK_HZ))
        if not self._pictures.put((self._last_pts, waiting.planes)):
            self.dropped["encoder"] += 1
        if waiting.sound is not None and self._opus is not None:
            packets = await to_its_end(asyncio.to_thread(self._opus.encode, waiting.sound))
            for packet in packets:
                self._client.put_sound(self._placed(packet.pts, at_s), packet.data)

    def _placed(self, pts: int, at_s: float) -> int:
        """Sound goes on where it ended, unless its picture is elsewhere by now."""
        there = round(at_s * OPUS_HZ)
        if self._sound_base is None or abs(pts + self._sound_base - there) > _SOUND_JUMP:
            self._sound_base = there - pts
        return pts + self._sound_base

    def end_pictures(self) -> None:
        """No more will come: the connection ends when the last has gone out."""
        if self._pictures is not None:
            self._pictures.end()


@dataclass(frozen=True, slots=True)
class _Options:
    url: str
    token: str | None
    sound_hz: int | None
    queue: int
    clock: Clock

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


@asynccontextmanager
async def publish(
    url: str,
    *,
    token: str | None = None,
    fps: float | None = None,
    bitrate_bps: int = BITRATE_BPS,
    sound_hz: int | None = None,
    queue: int = QUEUE,
    wait: bool = False,
    reconnect: bool = True,
) -> AsyncIterator[Publication]:
    """Publish to a WHIP address: `async with publish(url) as p: await p.send(frame)`.

    Connected when the block begins; at its end what waits goes out, and the session is deleted.
    Frames may come in bursts (LongLive gives 9, then 12 at once): they go out evenly, at the mean
    rate at which they come, or at exactly `fps`. H.264 at `bitrate_bps`, with a keyframe when one
    is asked for and every two seconds.

    `queue`: so many frames may wait. When it is full, `send` waits if `fps` is given; otherwise
    the oldest frame goes, counted in `Publication.dropped`: a live generator is not held up.
    `sound_hz`: the sample rate of the sound given to `send`; without it there is none.
    `wait`: try until the server is there; otherwise the first connection fails at once.
    `reconnect`: connect again after 1, 2, 4 .. 30 s when the session ends; frames of that time are
    dropped, counted `not connected`. Two publishers of one stream that both do would take it from
    each other again and again.

    Raises Unreachable, Refused (a wrong token, no WHIP there), Busy (no room), StreamError or
    MediaError when no connection comes about; `Publication.send` raises why it was given up later.
    """
    if fps is not None and not 0 < fps <= 240:
        raise MediaError("no such rate", found=fps, expected="above 0, at most 240")
    if queue < 1:
        raise MediaError("the queue must hold a frame", found=queue, expected="1 or more")
    clock = MonotonicClock()
    client = WhipClient(
        _ANY_SIZE, fps or Pacer().rate_fps, bitrate_bps, clock=clock, sound=sound_hz is not None
    )
    kept = Kept(
        f"publishing to {urlsplit(url).netloc}", clock=clock, wait=wait, reconnect=reconnect
    )
    publication = Publication(kept, client, fps, _Options(url, token, sound_hz, queue, clock))
    connection = asyncio.create_task(kept.run(publication.once))
    pacing = asyncio.create_task(publication.pace())
    try:
        await kept.first()
        yield publication
        await publication.drain()
        if kept.state is PushState.LIVE:
            kept.finish()
            publication.end_pictures()
            await asyncio.wait([connection], timeout=2.0)
    finally:
        for task in (pacing, connection):
            task.cancel()
        await to_its_end(_gathered(pacing, connection))
        kept.close()


async def _gathered(*tasks: asyncio.Task[None]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def _planes(frame: npt.ArrayLike) -> Planes:
    return planes_from_rgb(rgb_levels(frame))
