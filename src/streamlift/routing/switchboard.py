"""The lanes of one stream: opens them, feeds them, and passes on the frames of the shown one."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from streamlift.errors import NoCapacity, UpscaleError
from streamlift.frames import EncodedFrame, Frame, LaneOptions, Rendition, Size
from streamlift.routing.feed import Feed
from streamlift.routing.ports import Backend, Lane
from streamlift.routing.supervise import supervise

__all__ = ["Switchboard", "Viewport"]

log = logging.getLogger(__name__)


class Viewport(Protocol):
    """What the switchboard tells its stream."""

    def lane_options(self) -> LaneOptions: ...

    def show(self, encoded: EncodedFrame, backend: str) -> None:
        """A frame of the shown lane, to go out now."""
        ...

    def refused(self, error: NoCapacity) -> None:
        """No slot on the stream's backend: its publisher must be turned away."""
        ...

    def failed(self, backend: str, reason: str) -> None: ...

    def lane_ended(self, lane: Lane) -> None: ...


class Switchboard:
    """Owns one task per lane, from its opening to its end."""

    def __init__(
        self,
        stream: str,
        backends: Mapping[str, Backend],
        backend: str,
        viewport: Viewport,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._stream = stream
        self._backends = backends
        self._viewport = viewport
        self._tasks = tasks
        self._feeds: dict[Feed, asyncio.Task[None]] = {}
        self._current: Feed | None = None
        self.backend = backend

    def offer(self, frame: Frame) -> None:
        """Hand a frame to the current lane; a new size opens a new one while the old drains."""
        if self._current is not None and self._current.size != frame.size:
            self.finish()
        if self._current is None:
            self._current = self._open(self.backend, frame.size)
        self._current.offer(frame)

    def request_keyframe(self) -> None:
        if self._current is not None and self._current.lane is not None:
            self._current.lane.request_keyframe()

    def set_renditions(self, wanted: frozenset[Rendition]) -> None:
        for feed in self._feeds:
            if feed.lane is not None:
                feed.lane.set_renditions(wanted)

    def dropped(self) -> Counter[str]:
        """Drops of the lanes that are open now, by reason."""
        total: Counter[str] = Counter()
        for feed in self._feeds:
            if feed.lane is not None:
                total.update(feed.lane.dropped)
        return total

    def finish(self) -> None:
        """No more frames for the current lane: it drains and ends by itself."""
        if self._current is not None:
            self._current.finish()
            self._current = None

    async def drain(self, timeout_s: float) -> None:
        """Finish, give the lanes `timeout_s` to deliver what they owe, then end them."""
        self.finish()
        tasks = list(self._feeds.values())
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        for task in tasks:
            task.cancel()

    def _open(self, backend: str, size: Size) -> Feed:
        feed = Feed(backend, size)
        work = supervise(f"stream {self._stream}: lane on {backend}", self._carry(feed))
        self._feeds[feed] = self._tasks.create_task(work)
        return feed

    async def _carry(self, feed: Feed) -> None:
        """A lane's whole life."""
        try:
            lane = await self._backends[feed.backend].open_lane(
                feed.size, self._viewport.lane_options()
            )
            try:
                lane.set_renditions(self._viewport.lane_options().renditions)
                feed.attach(lane)
                async for encoded in lane:
                    feed.returned(encoded.pts)
                    self._viewport.show(encoded, feed.backend)
                if not feed.finished:
                    raise UpscaleError("the lane ended before it was told to finish")
            finally:
                self._viewport.lane_ended(lane)
                await lane.aclose()
        except NoCapacity as error:
            self._viewport.refused(error)
        except Exception as error:
            # Broad on purpose: whatever a backend raises ends its lane and only that.
            log.warning("stream %s: %s", self._stream, error, exc_info=error)
            self._viewport.failed(feed.backend, str(error))
        finally:
            self._forget(feed)

    def _forget(self, feed: Feed) -> None:
        self._feeds.pop(feed, None)
        if self._current is feed:
            self._current = None
