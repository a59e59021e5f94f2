"""Streams pushed by RTMP and RTSP: FFmpeg listens; it is killed, comes back, and stands still."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scripts.children import bound
from tests.peers import ffmpeg_whip
from tests.serving import Served, light, serving, until
from tests.stamped import TINY, sending, viewing

from streamlift.config import OutputsConfig, PushConfig
from streamlift.frames import Size

pytestmark = pytest.mark.peer

SINK = Path(__file__).parent / "media_sink.py"
OUTPUTS = "/api/v1/streams/live/outputs"
KEY = "canary-key-4711"
HERE = OutputsConfig(allowed_hosts=("127.0.0.1",))
UPSCALED = [2 * TINY.width, 2 * TINY.height]


@dataclass(eq=False)
class Sink:
    """What FFmpeg tells of its publisher, line by line."""

    process: asyncio.subprocess.Process
    told: list[dict[str, Any]] = field(default_factory=list)

    @property
    def pictures(self) -> list[dict[str, Any]]:
        return [line for line in self.told if "size" in line]

    @property
    def sound(self) -> list[dict[str, Any]]:
        return [line for line in self.told if "sound" in line]

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.told.append(json.loads(line))

    async def more(self, pictures: int, timeout_s: float = 40.0) -> None:
        wanted = len(self.pictures) + pictures
        await until(
            lambda: len(self.pictures) >= wanted,
            f"{pictures} pictures",
            timeout_s=timeout_s,
            show=lambda: self.told[-3:],
        )

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Sink]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONASYNCIODEBUG"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    process = await asyncio.create_subprocess_exec(
        *bound(sys.executable, str(SINK), url), stdout=PIPE, env=environment
    )
    sink = Sink(process)
    reading = asyncio.create_task(sink.read())
    try:
        yield sink
    finally:
        if process.returncode is None:
            process.kill()
        await reading
        await process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


async def add(served: Served, **body: Any) -> str:
    async with served.http() as http:
        answer = await http.post(OUTPUTS, json=body)
    assert answer.status_code == 201, answer.text
    assert KEY not in answer.text
    return str(answer.json()["id"])


async def output(served: Served) -> Any:
    (only,) = (await served.read(OUTPUTS))["outputs"]
    assert KEY not in json.dumps(only)
    return only


async def in_state(served: Served, state: str, timeout_s: float = 30.0) -> None:
    async def is_so() -> bool:
        return bool((await output(served))["state"] == state)

    await until(is_so, f"the output to be {state}", timeout_s=timeout_s)


@pytest.mark.parametrize("scheme", ["rtmp", "rtsp"])
async def test_pictures_and_sound_arrive_and_after_the_server_was_killed_they_arrive_again(
    scheme: str, certificate: tuple[Path, Path]
) -> None:
    url = f"{scheme}://127.0.0.1:{free_port()}/live"
    body = {"url": url, "token": KEY} if scheme == "rtmp" else {"url": url}
    there = f"{url}/{KEY}" if scheme == "rtmp" else url
    async with (
        serving(light(outputs=HERE)) as served,
        ffmpeg_whip(served.whip(), certificate, sound=True, size=str(TINY)),
    ):
        async with listening(there) as sink:
            await served.live()
            made = await add(served, type=scheme, **body)
            await sink.more(50)
            seen = sink.pictures
            assert {tuple(p["size"]) for p in seen} == {tuple(UPSCALED)}
            assert seen[0]["key"]
            numbers = [p["number"] for p in seen]
            assert all(b > a for a, b in pairwise(numbers)), numbers
            # A busy machine leaves pictures out; those that come keep their own times.
            for one, other in pairwise(seen):
                due = 0.04 * (other["number"] - one["number"])
                assert other["at"] - one["at"] == pytest.approx(due, abs=0.003)
            await until(lambda: len(sink.sound) >= 2, "a second of sound")
            sound = "aac" if scheme == "rtmp" else "opus"
            assert sorted(sink.told[0]["tracks"]) == sorted(["h264", sound])
            assert sink.sound[0]["rate"] == 48_000
            told = await output(served)
            assert (told["type"], told["state"], told["connections"]) == (scheme, "live", 1)
            assert told["bytes_sent"] > 10_000
            await sink.kill()
        await in_state(served, "waiting")
        assert "next try in" in (await output(served))["reason"]
        async with listening(there) as sink:
            await sink.more(10)
            assert sink.pictures[0]["key"]
            again = await output(served)
            assert again["connections"] == 2
            async with served.http() as http:
                metrics = (await http.get("/metrics")).text
                assert f'streamlift_outputs_state{{state="live",type="{scheme}"}} 1.0' in metrics
                assert (await http.delete(f"{OUTPUTS}/{made}")).status_code == 204
            await asyncio.wait_for(sink.process.wait(), 15)  # it was told that this is the end
        assert (await served.read(OUTPUTS))["outputs"] == []


async def test_a_configured_push_begins_with_its_stream_and_anew_with_another_size() -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/{KEY}"
    configured = OutputsConfig(("127.0.0.1",), push=(PushConfig("live", url),))
    async with (
        serving(light(outputs=configured)) as served,
        listening(url) as sink,
        sending(served.whip()) as source,
    ):
        await sink.more(10)
        source.size = Size(192, 128)
        await asyncio.wait_for(sink.process.wait(), 30)
        assert {tuple(p["size"]) for p in sink.pictures} == {tuple(UPSCALED)}
        async with listening(url) as another:
            await another.more(5)
            assert {tuple(p["size"]) for p in another.pictures} == {(384, 256)}


async def test_a_server_that_takes_nothing_holds_neither_stream_nor_viewers_back() -> None:
    async def take_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        for _ in range(3):  # enough for a session to begin
            writer.write(b"RTSP/1.0 200 OK\r\nSession: 1\r\n\r\n")
        await gone.wait()
        writer.transport.abort()

    gone = asyncio.Event()
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(take_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with serving(light(outputs=HERE)) as served, sending(served.whip()):
            await served.live()
            async with viewing(served.whep()) as viewer:
                await add(served, type="rtsp", url=f"rtsp://127.0.0.1:{port}/live")
                await in_state(served, "live")
                await viewer.more(100, timeout_s=40)
                assert not viewer.gone.done(), "the viewer would have had to reconnect"
                assert (await output(served))["state"] in ("live", "waiting")
    finally:
        gone.set()
        server.close()
