"""RTSP readers of a live stream: FFmpeg's (in PyAV), slow ones, and those who break the rules."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import itertools
import json
import os
import statistics
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.peers import ffmpeg_whip
from tests.serving import Served, light, serving, until
from tests.stamped import TINY, sending, viewing

from streamlift.config import AuthConfig, BackendConfig, Config, RtspConfig
from streamlift.frames import Size
from streamlift.service import RtspDoor

pytestmark = pytest.mark.peer

READER = Path(__file__).parent / "rtsp_reader.py"
UPSCALED = [2 * TINY.width, 2 * TINY.height]


def config(**changes: Any) -> Config:
    return dataclasses.replace(light(rtsp=RtspConfig(port=0)), **changes)


def door_of(served: Served) -> RtspDoor:
    door = served.app.state.rtsp
    assert isinstance(door, RtspDoor)
    return door


def address(served: Served, stream: str = "live", password: str = "") -> str:
    who = f"x:{password}@" if password else ""
    return f"rtsp://{who}127.0.0.1:{door_of(served).port}/{stream}"


@dataclasses.dataclass(frozen=True)
class Read:
    """What `rtsp_reader.py` prints."""

    error: str | None
    sizes: list[list[int]]
    times: list[float]
    ages: list[float]
    sound: int

    @property
    def steps(self) -> list[float]:
        return [b - a for a, b in itertools.pairwise(self.times)]


async def read(url: str, pictures: int, timeout_s: float = 45.0) -> Read:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONASYNCIODEBUG"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(READER), url, str(pictures), stdout=PIPE, env=environment
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    return Read(**json.loads(output))


async def test_ffmpeg_reads_pictures_in_time_and_of_the_upscaled_size() -> None:
    async with serving(config()) as served, sending(served.whip()):
        await served.live()
        seen = await read(address(served), 50)
        assert seen.error is None
        assert seen.sizes == [UPSCALED] * 50
        # A busy machine leaves pictures out; those that come have their own times.
        assert all(
            step == pytest.approx(0.04 * round(step / 0.04), abs=0.003) for step in seen.steps
        )
        assert min(seen.steps) > 0.03
        assert seen.sound == 0
        await until(lambda: not len(list(viewers(served))), "the reader's session to end")


def viewers(served: Served) -> Iterator[object]:
    return (s for s in served.parts.sessions if s.role == "view")


async def test_sound_comes_along_with_the_pictures(certificate: tuple[Path, Path]) -> None:
    pair = certificate
    async with serving(config()) as served, ffmpeg_whip(served.whip(), pair, sound=True):
        await served.live()
        seen = await read(address(served), 50)
        assert len(seen.sizes) == 50
        assert seen.sound >= 50  # 20 ms a packet, so about a hundred in two seconds


async def test_the_view_token_is_the_password_and_nothing_else_opens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokens = AuthConfig(publish=("p" * 20,), view=("v" * 20,), control=("c" * 20,))
    async with serving(config(auth=tokens)) as served:
        for password in ("", "w" * 20):
            seen = await read(address(served, password=password), 1)
            assert seen.error is not None
            assert "401" in seen.error
        status, _ = await ask(served, "DESCRIBE", "live", password="c" * 20)
        assert status == 403  # known, but not to view
        status, _ = await ask(served, "DESCRIBE", "live?token=" + "v" * 20)
        assert status == 401
        status, headers = await ask(served, "DESCRIBE", "nothing", password="v" * 20)
        assert status == 404  # nobody publishes it now
        assert "retry-after" not in headers
    assert "v" * 20 not in caplog.text


async def test_udp_is_refused_by_the_code_that_makes_players_ask_for_tcp() -> None:
    async with serving(config()) as served, sending(served.whip()), line(served) as (into, out):
        await served.live()
        status, _ = await ask_on(into, out, address(served), "DESCRIBE")
        assert status == 200
        setup = {"Transport": "RTP/AVP;unicast;client_port=5000-5001"}
        url = address(served) + "/trackID=0"
        assert (await ask_on(into, out, url, "SETUP", setup))[0] == 461
        assert (await ask_on(into, out, address(served), "PLAY"))[0] == 455
        tcp = {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1"}
        status, headers = await ask_on(into, out, url, "SETUP", tcp)
        assert (status, "interleaved=0-1" in headers["transport"]) == (200, True)
        assert (await ask_on(into, out, address(served) + "/trackID=1", "SETUP", tcp))[0] == 404
        assert (await ask_on(into, out, address(served), "PLAY", {"Session": "other"}))[0] == 454
        assert (await ask_on(into, out, address(served), "TEARDOWN"))[0] == 200


async def test_garbage_and_half_requests_end_alone() -> None:
    async with serving(config()) as served, sending(served.whip()):
        await served.live()
        for data in (b"\x16\x03\x01\x02\x00" * 40, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"$$$"):
            async with line(served) as (into, out):
                out.write(data)
                out.write_eof()
                await asyncio.wait_for(into.read(), 5)
        assert len((await read(address(served), 5)).sizes) == 5


async def test_an_address_has_no_more_connections_than_it_may() -> None:
    few = dataclasses.replace(config().limits, rtsp_per_address=2)
    async with (
        serving(config(limits=few)) as served,
        line(served),
        line(served),
        line(served) as (into, _),
    ):
        assert await asyncio.wait_for(into.read(), 5) == b""


async def test_a_reader_that_takes_nothing_misses_pictures_and_harms_nobody() -> None:
    async with serving(config()) as served, sending(served.whip()):
        await served.live()
        async with line(served) as (into, out):
            await play(served, into, out)
            into._transport.pause_reading()  # type: ignore[attr-defined]
            seen = await read(address(served), 50)
            assert len(seen.sizes) == 50


async def test_a_switch_of_backend_goes_on_and_another_size_ends_the_connection() -> None:
    two = (BackendConfig("bicubic", "bicubic"), BackendConfig("toy", "toy"))
    both = Config(default_backend="bicubic", backends=two, rtsp=RtspConfig(port=0))
    async with serving(both) as served, sending(served.whip()) as source:
        await served.live()
        reading = asyncio.create_task(read(address(served), 100))
        await until(lambda: any(viewers(served)), "the reader to play")
        async with served.http() as http:
            answer = await http.put("/api/v1/streams/live/backend", json={"backend": "toy"})
            assert answer.status_code == 202
        assert (await reading).sizes == [UPSCALED] * 100
        reading = asyncio.create_task(read(address(served), 10_000))
        await until(lambda: any(viewers(served)), "the reader to play")
        await asyncio.sleep(2.0)  # it looks at the stream for a while before it decodes
        source.size = Size(192, 128)
        assert {tuple(size) for size in (await reading).sizes} == {tuple(UPSCALED)}
        again = await read(address(served), 3)
        assert again.sizes == [[384, 256]] * 3


async def test_it_is_no_later_than_a_webrtc_viewer_by_half_a_second() -> None:
    """By the stamps drawn into the pictures; both read the same stream at the same time."""
    async with serving(config()) as served, sending(served.whip()):
        await served.live()
        async with viewing(served.whep()) as viewer:
            seen = await read(address(served), 120)
            by_webrtc = [one.latency_ms for one in viewer.shown if one.latency_ms is not None]
        # Its first seconds are what FFmpeg looked at before it began to play.
        late = statistics.median(seen.ages[-40:]) - statistics.median(by_webrtc[-40:])
        assert late < 500


@asynccontextmanager
async def line(served: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    into, out = await asyncio.open_connection("127.0.0.1", door_of(served).port)
    try:
        yield into, out
    finally:
        out.close()


async def play(served: Served, into: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
    url = address(served)
    assert (await ask_on(into, out, url, "DESCRIBE"))[0] == 200
    tcp = {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1"}
    assert (await ask_on(into, out, url + "/trackID=0", "SETUP", tcp))[0] == 200
    assert (await ask_on(into, out, url, "PLAY"))[0] == 200


async def ask(
    served: Served, method: str, path: str, *, password: str = ""
) -> tuple[int, dict[str, str]]:
    headers = {}
    if password:
        headers["Authorization"] = "Basic " + base64.b64encode(f"x:{password}".encode()).decode()
    async with line(served) as (into, out):
        return await ask_on(into, out, address(served, path), method, headers)


async def ask_on(
    into: asyncio.StreamReader,
    out: asyncio.StreamWriter,
    url: str,
    method: str,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str]]:
    lines = [f"{method} {url} RTSP/1.0", "CSeq: 1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    out.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    head = (await asyncio.wait_for(into.readuntil(b"\r\n\r\n"), 15)).decode()
    first, *rest = head.strip().split("\r\n")
    found = {n.lower(): v.strip() for n, _, v in (row.partition(":") for row in rest)}
    await into.readexactly(int(found.get("content-length", 0)))
    return int(first.split(" ")[1]), found
