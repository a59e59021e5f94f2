"""Numpy frames in and out of a real service: published, watched, refused, connected again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from tests.serving import Served, light, serving, until

from streamlift.client import (
    ApiError,
    Client,
    Publication,
    Refused,
    StreamliftError,
    Unreachable,
    Watching,
    publish,
    watch,
)
from streamlift.config import AuthConfig
from streamlift.errors import MediaError

pytestmark = pytest.mark.peer

SIDE = 128
LEFT, RIGHT = (0.9, 0.2, 0.1), (0.1, 0.3, 0.8)


def frame(dtype: type = np.float32) -> npt.NDArray[np.generic]:
    """Red on the left, blue on the right."""
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    picture[:, : SIDE // 2], picture[:, SIDE // 2 :] = LEFT, RIGHT
    return np.rint(picture * 255).astype(np.uint8) if dtype is np.uint8 else picture.astype(dtype)


@asynccontextmanager
async def sending(publication: Publication, **keywords: object) -> AsyncIterator[None]:
    """LongLive's bursts, until the block ends."""

    async def send() -> None:
        size = 9
        while True:
            for _ in range(size):
                await publication.send(frame())
            await asyncio.sleep(size / 25)
            size = 12

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16])
async def test_frames_arrive_all_of_them_in_their_colours(service: Served, dtype: type) -> None:
    sent = 30
    async with publish(service.whip(), fps=25) as publication:
        for _ in range(5):
            await publication.send(frame(dtype))
        async with watch(service.whep(), wait=True) as pictures:
            for _ in range(sent - 5):
                await publication.send(frame(dtype))
            picture = await anext(pictures)
            assert picture.rgb.dtype == np.uint8
            assert picture.size == (2 * SIDE, 2 * SIDE)
            assert np.abs(picture.rgb[:, 40:80].mean((0, 1)) - np.multiply(LEFT, 255)).max() < 8
            assert np.abs(picture.rgb[:, 180:220].mean((0, 1)) - np.multiply(RIGHT, 255)).max() < 8
            later = [await anext(pictures) for _ in range(5)]
            times = [picture.pts, *(p.pts for p in later)]
            assert times == sorted(set(times))
    assert publication.sent == sent
    assert not publication.dropped
    assert publication.state == "closed"
    await until(lambda: len(list(service.parts.sessions)) == 0, "the sessions to be deleted")


async def test_bursts_go_out_one_by_one(service: Served) -> None:
    async with publish(service.whip()) as publication, sending(publication):
        await until(lambda: publication.sent > 60, "60 pictures")
        received = (await service.stream())["frames"]["received"]
    assert received >= 55
    assert not publication.dropped


async def test_a_session_that_ends_is_begun_again_by_both(service: Served) -> None:
    async with (
        Client(service.url) as client,
        client.publish("live") as publication,
        sending(publication),
        client.watch("live", wait=True) as pictures,
    ):
        times = [(await anext(pictures)).pts]
        for session in list(service.parts.sessions):
            await client.end_session(session.id)
        await until(lambda: publication.connections == 2, "it to publish again")
        await until(lambda: pictures.connections == 2, "it to watch again")
        times += [(await anext(pictures)).pts for _ in range(40)]
        assert times == sorted(set(times))
        assert publication.state == pictures.state == "live"


async def test_without_reconnection_the_end_is_told(service: Served) -> None:
    async with Client(service.url) as client, client.publish("live", reconnect=False) as published:
        async with sending(published), watch(service.whep(), wait=True, reconnect=False) as seen:
            await anext(seen)
            for session in list(service.parts.sessions):
                await client.end_session(session.id)
            async for _ in seen:  # ends
                pass
        await until(lambda: published.state == "closed", "the publisher to notice")
        with pytest.raises(MediaError, match="ended the session"):
            await published.send(frame())


async def test_frames_of_a_time_without_connection_are_counted() -> None:
    async with serving() as service, publish(service.whip(), fps=50) as publication:
        await publication.send(frame())
        await until(lambda: publication.sent == 1, "a picture")
        for session in list(service.parts.sessions):
            await service.parts.end(session, "test")
        await until(lambda: publication.state != "live", "it to notice")
        await publication.send(frame())
        await until(lambda: publication.dropped["not connected"] == 1, "the frame to be counted")


async def test_a_full_queue_gives_up_the_oldest_or_waits(service: Served) -> None:
    async with publish(service.whip(), queue=2) as publication:
        small = np.zeros((64, 64, 3), np.uint8)
        await asyncio.gather(*(publication.send(small) for _ in range(60)))
        assert publication.queued <= 2
        assert publication.dropped["full"] >= 2
    async with publish(service.whip(), queue=2, fps=100) as publication:
        for _ in range(6):
            await publication.send(frame(np.uint8))
    assert publication.sent == 6


async def test_sound_comes_with_its_pictures(service: Served) -> None:
    with service.parts.audio.use("live") as relay, relay.listen() as heard:
        async with publish(service.whip(), fps=25, sound_hz=24_000) as publication:
            tone = np.sin(np.arange(960) * 2 * np.pi * 440 / 24_000)
            for _ in range(40):
                await publication.send(frame(), tone)
            packets = [await anext(heard) for _ in range(20)]
    steps = {b.pts - a.pts for a, b in pairwise(packets)}
    assert steps == {960}


async def test_another_size_in_mid_stream_is_shown(service: Served) -> None:
    async with publish(service.whip(), fps=25) as publication:

        async def send() -> None:
            for number in range(1000):
                side = 128 if number < 40 else 192
                await publication.send(np.zeros((side, side, 3), np.uint8))

        task = asyncio.create_task(send())
        try:
            async with watch(service.whep(), wait=True) as pictures:
                async with asyncio.timeout(20):
                    while (await anext(pictures)).size != (384, 384):
                        pass
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_refusals_come_at_the_beginning() -> None:
    auth = AuthConfig(publish=("p",), view=("v",), control=("c",))
    async with serving(light(auth=auth)) as service:
        with pytest.raises(Refused, match="401"):
            async with publish(service.whip()):
                pass
        with pytest.raises(Refused, match="401"):
            async with watch(service.whep(), token="wrong"):
                pass
        with pytest.raises(StreamliftError, match="409"):
            async with watch(service.whep(), token="v"):
                pass
        with pytest.raises(ApiError, match="bearer token"):
            async with Client(service.url) as client:
                await client.streams()
        async with publish(service.whip(), token="p", fps=25) as publication:
            await publication.send(frame())
        assert publication.sent == 1
    with pytest.raises(Unreachable):
        async with publish("http://127.0.0.1:9/whip/live"):
            pass


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((64, 64)), "no picture that can be encoded"),
        (np.zeros((63, 64, 3), np.uint8), "no picture that can be encoded"),
        (np.zeros((64, 64, 3), np.int32), "type are not understood"),
        (np.full((64, 64, 3), np.nan), "what is no number"),
    ],
)
async def test_what_is_no_picture_is_said(service: Served, wrong: npt.ArrayLike, said: str) -> None:
    async with publish(service.whip()) as publication:
        with pytest.raises(MediaError, match=said):
            await publication.send(wrong)
        with pytest.raises(MediaError, match="sound_hz"):
            await publication.send(frame(), np.zeros(10))
    assert publication.sent == 0


async def test_sound_that_is_none_is_said_at_once_and_spoils_nothing(service: Served) -> None:
    async with publish(service.whip(), fps=25, sound_hz=48_000) as publication:
        with pytest.raises(MediaError, match="type are not understood"):
            await publication.send(frame(), np.zeros(3, np.int32))
        for piece in (np.zeros(1920), np.zeros((1920, 2)), np.zeros(0)):
            await publication.send(frame(), piece)
        await publication.drain()
    assert publication.state == "closed"


async def test_an_error_in_the_block_is_raised_as_it_is(service: Served) -> None:
    seen: list[Publication | Watching] = []

    async def fail() -> None:
        async with publish(service.whip(), fps=25) as publication:
            seen.append(publication)
            await publication.send(frame())
            async with watch(service.whep(), wait=True) as watching:
                seen.append(watching)
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert [one.state for one in seen] == ["closed", "closed"]
