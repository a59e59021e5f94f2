"""URLs through the whole service: asked for by HTTP, watched by a viewer, with sound."""

from __future__ import annotations

import dataclasses
import logging
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.live.test_rtsp import address
from tests.media.remote.url import media
from tests.peers import ffmpeg_whip, watching
from tests.serving import Served, light, serving, until

from streamlift.config import AuthConfig, Config, RtspConfig, SourcesConfig
from streamlift.frames import Codec, CodedAudio

pytestmark = pytest.mark.peer

STREAMS = "/api/v1/streams"


def config(*, url: bool = True, **sources: Any) -> Config:
    allowed = {"allowed_hosts": ("127.0.0.1",), "url": url, **sources}
    return light(sources=SourcesConfig(**allowed))


async def post(served: Served, url: str, name: str = "mine", **more: Any) -> Any:
    async with served.http() as http:
        source = {"kind": "url", "url": url, **more}
        return await http.post(STREAMS, json={"name": name, "source": source})


async def source_of(served: Served, name: str = "mine") -> Any:
    return await served.read(f"{STREAMS}/{name}/source")


async def heard(served: Served, packets: int, name: str = "mine") -> list[CodedAudio]:
    """So much of the stream's sound, as a viewer gets it."""
    got: list[CodedAudio] = []
    with served.parts.listening(name) as sound:
        async for packet in sound:
            got.append(packet)
            if len(got) == packets:
                break
    return got


async def test_a_file_in_a_loop_is_upscaled_for_a_viewer_with_sound_and_source_view(
    tmp_path: Path,
) -> None:
    media.clip(tmp_path / "a.mp4")
    async with serving(config(directories=(str(tmp_path),))) as served:
        response = await post(served, f"file://{tmp_path}/a.mp4", loop=True)
        assert response.status_code == 201, response.text
        await served.live("mine")
        await until(lambda: served.parts.has_sound("mine"), "sound")
        async with (
            watching(served.whep("mine")) as viewer,
            watching(served.whep("mine", view="source"), codecs=(Codec.H264,)) as source_viewer,
        ):
            await viewer.wait_units(20)
            await source_viewer.wait_units(5)
            assert len(await heard(served, 20)) == 20
        stream = await served.stream("mine")
        assert stream["publisher"]["size"] == [media.WIDTH, media.HEIGHT]
        assert stream["publisher"]["codec"] == "h264"
        assert stream["output"]["size"] == [2 * media.WIDTH, 2 * media.HEIGHT]
        source = await source_of(served)
        assert (source["state"], source["kind"], source["loop"]) == ("live", "url", True)
        assert (source["video"], source["sound"]) == ("h264", "aac")
        async with served.http() as http:
            assert (await http.delete(f"{STREAMS}/mine")).status_code == 204
        await until(lambda: served.state("mine") is None, "the stream to end")
        assert (await source_of(served))["status"] == 404


async def test_a_file_that_is_over_leaves_the_stream_waiting(tmp_path: Path) -> None:
    media.clip(tmp_path / "a.mp4", frames=25)
    async with serving(config(directories=(str(tmp_path),))) as served:
        await post(served, f"file://{tmp_path}/a.mp4")
        await served.live("mine")
        await until(lambda: served.state("mine") == "waiting", "the end of the file")
        assert (await source_of(served))["status"] == 404


async def test_our_own_rtsp_door_is_a_source_with_sound_and_its_end_is_mended(
    certificate: tuple[Path, Path],
) -> None:
    doors = dataclasses.replace(config(), rtsp=RtspConfig(port=0))
    async with serving(doors) as served:
        async with ffmpeg_whip(served.whip("first"), certificate, size="256x256", sound=True):
            await served.live("first")
            url = address(served, "first", password="any")
            assert (await post(served, url)).status_code == 201
            await served.live("mine", timeout_s=30)
            assert len(await heard(served, 20)) == 20
            async with watching(served.whep("mine")) as viewer:
                await viewer.wait_units(10)
            shown = await source_of(served)
            assert shown["sound"] in ("opus", "libopus")
            assert "any" not in shown["url"]
            assert (await served.stream("mine"))["output"]["size"] == [1024, 1024]
            async with served.http() as http:
                await http.delete(f"{STREAMS}/first")
            await until(lambda: _state(served) == "waiting", "it to be missed", timeout_s=30)
        async with ffmpeg_whip(served.whip("first"), certificate, size="256x256"):
            await until(lambda: _state(served) == "live", "it to come back", timeout_s=60)


def _tried(served: Served, name: str) -> bool:
    return served.parts.pulls.get(name).status.reason != ""


def _state(served: Served) -> str:
    return str(served.parts.pulls.get("mine").status.state)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("rtsp://10.1.2.3/x", "sources.allowed_hosts"),
        ("https://example.org/live.m3u8", "sources.allowed_hosts"),
        ("file:///etc/passwd", "sources.directories"),
        ("udp://0.0.0.0:5004", "sources.udp"),
        ("srt://127.0.0.1:9000", "expected one of http, https, rtsp"),
        ("not a url", "this is no URL"),
    ],
)
async def test_what_is_not_allowed_is_422_and_says_why(url: str, words: str) -> None:
    async with serving(config()) as served:
        response = await post(served, url)
    assert response.status_code == 422
    assert words in response.json()["detail"]


async def test_it_is_off_unless_switched_on() -> None:
    async with serving(config(url=False)) as served:
        response = await post(served, "rtsp://127.0.0.1/x")
    assert response.status_code == 422
    assert "sources.url: on" in response.json()["detail"]


async def test_only_a_control_token_may_pull() -> None:
    tokens = AuthConfig(publish=("p" * 20,), view=("v" * 20,), control=("c" * 20,))
    async with serving(dataclasses.replace(config(), auth=tokens)) as served, served.http() as http:
        body = {"name": "mine", "source": {"kind": "url", "url": "rtsp://127.0.0.1/x"}}
        for token, status in (("v", 403), ("p", 403)):
            headers = {"Authorization": "Bearer " + token * 20}
            assert (await http.post(STREAMS, json=body, headers=headers)).status_code == status
        assert (await http.post(STREAMS, json=body)).status_code == 401


async def test_user_password_and_query_are_never_shown_nor_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    async with serving(config()) as served:
        for scheme in ("rtsp", "rtmp", "http"):
            url = f"{scheme}://canary-user:canary-word@127.0.0.1:{port}/a/b?key=canary-query"
            shown = [(await post(served, url, scheme)).text]
            await until(
                partial(_tried, served, scheme),
                "the first try",
                timeout_s=20,
            )
            async with served.http() as http:
                paths = (STREAMS, f"{STREAMS}/{scheme}", f"{STREAMS}/{scheme}/source", "/metrics")
                shown += [(await http.get(path)).text for path in paths]
            assert "canary" not in "".join(shown)
        response = await post(served, "rtsp://canary:canary@127.0.0.1:port/x", "bad")
        assert response.status_code == 422
        assert "canary" not in response.text
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("streamlift")]
    assert ours
    assert "canary" not in "".join(ours)
    assert "canary" not in "".join(capfd.readouterr())
