"""The target size of a running stream: what viewers, RTSP readers and recordings get of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from tests.live.test_rtsp import Read, read
from tests.machine import in_time
from tests.serving import until
from tests.staged import SLOWEST_GAP_MS, Stage, stage, too_long
from tests.stamped import lost, viewing

from streamlift.clock import MonotonicClock
from streamlift.config import BackendConfig, OutputsConfig, RtspConfig
from streamlift.frames import Size
from streamlift.service import RtspDoor

pytestmark = pytest.mark.peer

BICUBIC = BackendConfig("bicubic", "bicubic", slots=4)
SOURCE = Size(320, 180)
HD = {"size": [1280, 720]}


async def retarget(on: Stage, target: dict[str, Any] | None) -> httpx.Response:
    return await on.http.patch("/api/v1/streams/live", json={"target": target})


async def resized(on: Stage, target: dict[str, Any] | None) -> dict[str, Any]:
    """Ask for it, wait for the event that says it is there, and return that."""
    before = len(on.events)
    answer = await retarget(on, target)
    assert answer.status_code == 200, answer.text
    return await on.done(before, f"target {target}")


async def test_a_viewer_sees_720p_of_360p_in_mid_stream() -> None:
    async def run() -> list[str]:
        async with stage(BICUBIC, source=SOURCE, fps=12.5) as on:
            assert on.viewer.shown[-1].size == Size(640, 360)
            started_s = MonotonicClock().now_s()
            told = await resized(on, HD)
            await on.viewer.see("720p", lambda one: one.size == Size(1280, 720))
            await on.viewer.more(12)
            on.viewer.assert_unbroken()
            sizes = [one.size for one in on.viewer.since(started_s)]
            assert set(sizes) <= {Size(640, 360), Size(1280, 720)}
            assert sizes == sorted(sizes), "from one to the other once"
            assert sizes[-1] == Size(1280, 720)
            assert (told["from"], told["to"]) == ("bicubic", "bicubic")
            assert told["reason"] == "target 1280x720"
            assert isinstance(told["gap_ms"], float)
            stream = await on.service.stream()
            assert stream["target"] == {"size": [1280, 720], "fit": "contain"}
            assert stream["output"]["size"] == [1280, 720]
            assert stream["state"] == "live"
            # At 12.5 fps a frame's time is twice as long.
            found = too_long(on.viewer.since(started_s), 2 * SLOWEST_GAP_MS)
            missing = lost(on.viewer.since(started_s))
            return found + ([f"{missing} lost"] if missing else [])

    await in_time(run)


async def test_forth_and_back_under_two_viewers_no_frame_is_lost() -> None:
    steps: list[tuple[dict[str, Any] | None, int]] = [
        ({"scale": 1.5}, 384),
        ({"size": [640, 640], "fit": "stretch"}, 640),
        (None, 512),
        ({"scale": 3}, 768),
        (None, 512),
    ]

    async def run() -> list[str]:
        async with (
            stage(BICUBIC, source=Size(256, 256), fps=12.5) as on,
            viewing(on.service.whep(), Size(256, 256)) as second,
        ):
            started_s = MonotonicClock().now_s()
            viewers = (on.viewer, second)
            for target, width in steps:
                await resized(on, target)
                for viewer in viewers:
                    await until(lambda v=viewer, w=width: v.shown[-1].size.width == w, f"{width}")  # type: ignore[misc]
            found = []
            for viewer in viewers:
                await viewer.more(5)
                viewer.assert_unbroken()
                found += too_long(viewer.since(started_s), 2 * SLOWEST_GAP_MS)
                if missing := lost(viewer.since(started_s)):
                    found.append(f"{missing} lost")
            assert (await on.service.stream())["target"] is None
            metrics = (await on.http.get("/metrics")).text
            counted = 'streamlift_backend_switch_total{from="bicubic",result="ok",to="bicubic"} 5'
            assert counted in metrics
            return found

    await in_time(run)


REFUSED: list[tuple[object, str]] = [
    ({"size": [1281, 720]}, "multiple of 2"),
    ({"size": [64, 64]}, "0.25 times"),
    ({"size": [2048, 2048]}, "8 times"),
    ({"size": [8192, 8192]}, "highest level"),
    ({"size": [1280]}, "at least 2 items"),
    ({"size": "1280x720"}, "array"),
    ({"scale": 0.5}, "greater than or equal to 1"),
    ({"scale": 4.5}, "less than or equal to 4"),
    ({"scale": 2, "size": [512, 512]}, "exactly one of scale and size"),
    ({"scale": 2, "fit": "cover"}, "fit goes with size"),
    ({"size": [512, 512], "fit": "fill"}, "contain"),
    ({}, "exactly one of scale and size"),
    ({"factor": 2}, "factor"),
]


async def test_what_cannot_be_is_422_and_says_why() -> None:
    async with stage(BICUBIC, source=Size(256, 256), fps=5) as on:
        for target, word in REFUSED:
            answer = await on.http.patch("/api/v1/streams/live", json={"target": target})
            assert answer.status_code == 422, target
            assert answer.headers["content-type"].startswith("application/problem+json")
            assert word in answer.text, (target, answer.text)
        unknown = await on.http.patch("/api/v1/streams/none", json={"target": HD})
        assert unknown.status_code == 404
        assert "switch.started" not in on.kinds()
        assert (await on.service.stream())["target"] is None


async def test_recordings_and_rtsp_readers_follow_a_change_of_size(tmp_path: Path) -> None:
    outputs = OutputsConfig(save=str(tmp_path))
    async with stage(
        BICUBIC, source=SOURCE, fps=12.5, outputs=outputs, rtsp=RtspConfig(port=0)
    ) as on:
        door = on.service.app.state.rtsp
        assert isinstance(door, RtspDoor)
        url = f"rtsp://127.0.0.1:{door.port}/live"
        first = asyncio.create_task(read(url, 1000))
        await until(lambda: on.service.parts.router.streams()[0].viewers == 3, "the reader")
        await on.viewer.more(10)
        await resized(on, HD)
        ended = await first
        assert _sizes(ended) == {(640, 360)}, "it ends: what it was told holds no more"
        assert _sizes(await read(url, 5)) == {(1280, 720)}
        await on.viewer.more(20)
        await on.http.delete("/api/v1/streams/live")
        await until(lambda: not on.service.parts.router.streams(), "the stream to end")
    recorded = await asyncio.to_thread(lambda: [_recorded(path) for path in tmp_path.iterdir()])
    assert sorted(map(sorted, recorded)) == [[(640, 360)], [(1280, 720)]]


async def test_a_backend_gives_the_scale_that_it_is_configured_with() -> None:
    halved = BackendConfig("bicubic", "bicubic", slots=4, scale=1.5)
    async with stage(halved, source=Size(256, 256), fps=12.5) as on:
        assert on.viewer.shown[-1].size == Size(384, 384)
        stream = await on.service.stream()
        assert (stream["target"], stream["output"]["size"]) == (None, [384, 384])
        await resized(on, {"scale": 2})
        await on.viewer.see("the stream's own", lambda one: one.size == Size(512, 512))
        await resized(on, None)
        await on.viewer.see("the backend's again", lambda one: one.size == Size(384, 384))
        on.viewer.assert_unbroken()


def _sizes(seen: Read) -> set[tuple[int, ...]]:
    return {tuple(size) for size in seen.sizes}


def _recorded(path: Path) -> set[tuple[int, int]]:
    with av.open(str(path)) as container:
        return {(one.width, one.height) for one in container.decode(video=0)}
