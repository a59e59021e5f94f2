"""A lane's whole life: opened, read to its end, closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from streamlift.clock import Clock
from streamlift.errors import NoCapacity, UpscaleError
from streamlift.frames import EncodedFrame, LaneOptions
from streamlift.routing.feed import Feed
from streamlift.routing.ports import Backend, Lane

__all__ = ["LaneOwner", "carry"]

SLOT_WAIT_S = 2.0
"""How long a lane on the same backend may take to drain and free its slot for its successor."""
CLOSING_S = 2.0


class LaneOwner(Protocol):
    """Who is told what happens to a lane."""

    def arrived(self, feed: Feed, encoded: EncodedFrame) -> None: ...

    def turned_away(self, feed: Feed, error: NoCapacity) -> None:
        """The backend has no slot."""
        ...

    def failed(self, feed: Feed, error: Exception) -> None:
        """The lane could not be opened, raised, or ended unasked."""
        ...

    def closing(self, lane: Lane) -> None: ...


async def carry(
    feed: Feed,
    backend: Backend,
    options: Callable[[], LaneOptions],
    owner: LaneOwner,
    clock: Clock,
    *,
    predecessor: asyncio.Task[None] | None,
    open_within_s: float,
) -> None:
    """Open a lane for `feed`, hand its frames to `owner` until it ends, close it.

    `predecessor`: the task of the lane whose slot this one may inherit. Nothing is raised but
    cancellation.
    """
    try:
        await asyncio.sleep(feed.delay_s)
        async with asyncio.timeout(open_within_s + SLOT_WAIT_S):
            lane = await _open(feed, backend, options, predecessor)
    except NoCapacity as error:
        owner.turned_away(feed, error)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises ends only its lane
        owner.failed(feed, error)
    else:
        await _read(feed, lane, options, owner, clock)


async def _open(
    feed: Feed,
    backend: Backend,
    options: Callable[[], LaneOptions],
    predecessor: asyncio.Task[None] | None,
) -> Lane:
    try:
        return await backend.open_lane(feed.size, options())
    except NoCapacity:
        if predecessor is None or predecessor.done():
            raise
    await asyncio.wait([predecessor], timeout=SLOT_WAIT_S)
    return await backend.open_lane(feed.size, options())


async def _read(
    feed: Feed, lane: Lane, options: Callable[[], LaneOptions], owner: LaneOwner, clock: Clock
) -> None:
    try:
        lane.set_renditions(options().renditions)  # they may have changed meanwhile
        feed.attach(lane, clock.now_s())
        async for encoded in lane:
            owner.arrived(feed, encoded)
        if not feed.finished:
            raise UpscaleError("the lane ended before it was told to finish")
    except Exception as error:  # noqa: BLE001 - as above
        owner.failed(feed, error)  # before closing, which may take its time
    finally:
        owner.closing(lane)
        async with asyncio.timeout(CLOSING_S):
            await lane.aclose()
