"""Our own WHIP publisher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.media.scripted import Answer, scripted
from tests.serving import serving, until

from streamlift.clock import MonotonicClock
from streamlift.errors import MediaError
from streamlift.frames import Size
from streamlift.media.files.clips import paced
from streamlift.media.files.scene import scene_pictures
from streamlift.media.remote.client import TimedPicture, WhipClient
from streamlift.media.remote.http import Signalling, Unreachable

TINY = Size(128, 128)


@pytest.mark.peer
async def test_a_client_that_found_nobody_publishes_at_its_next_attempt() -> None:
    clock = MonotonicClock()
    client = WhipClient(TINY, 25, 400_000, clock=clock)

    async def publish(url: str) -> str:
        pictures = paced(scene_pictures(TINY), 25, clock=clock)
        return await client.run(url, None, pictures, on_live=lambda: None)

    with pytest.raises(Unreachable):
        await publish("http://127.0.0.1:9/whip/live")
    async with serving() as served:
        running = asyncio.create_task(publish(served.whip()))
        await until(lambda: client.sent > 5, "pictures to be sent")
        await served.live()
        running.cancel()
        await asyncio.wait([running])


@pytest.mark.peer
async def test_pictures_that_break_off_end_it_with_their_own_error() -> None:
    clock = MonotonicClock()

    async def broken() -> AsyncIterator[TimedPicture]:
        yield 0, next(scene_pictures(TINY))
        raise MediaError("no readable video")

    client = WhipClient(TINY, 25, 400_000, clock=clock)
    async with serving() as served:
        with pytest.raises(MediaError, match="no readable video"):
            await client.run(served.whip(), None, broken(), on_live=lambda: None)


@pytest.mark.parametrize("body", ["no JSON", "[1]", '{"detail": "no JSON"}'])
async def test_a_refusal_is_told_whatever_its_body_is(body: str) -> None:
    problem = {"Content-Type": "application/problem+json"}
    async with scripted(Answer(422, problem, body)) as server, Signalling(server.url, None) as http:
        with pytest.raises(MediaError, match="answered 422"):
            await http.post("v=0")
