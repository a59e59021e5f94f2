"""The commands as a user runs them: processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.commands import START_S, address, running
from tests.media.remote.gateway import Switches, gateway
from tests.serving import Served, until

pytestmark = pytest.mark.peer

WATCH_KEYS = {
    "size",
    "frames",
    "fps",
    "first_frame_ms",
    "gap_ms",
    "latency_ms",
    "lost",
    "repeated",
}


async def test_serve_with_the_demo_can_be_watched_and_ends_at_a_signal(tmp_path: Path) -> None:
    async with running(
        "serve", "--port", "0", "--demo", "--backend", "bicubic", "--log-format", "json"
    ) as serve:
        url = await address(serve)
        report = await _watch(f"{url}/whep/demo")
        assert set(report) == WATCH_KEYS
        assert report["size"] == [1024, 1024]
        assert report["frames"] > 1
        assert set(report["gap_ms"]) == {"p50", "p95", "max"}
        assert report["latency_ms"] is None, "the demo carries no stamp"
        children = _children(serve)
        serve.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(serve.communicate(), START_S)
    assert serve.returncode == 0
    lines = [json.loads(line) for line in log.decode().splitlines() if line.startswith("{")]
    assert lines
    wrong = [line for line in lines if "traceback" in line or line["level"] == "error"]
    assert not wrong, log.decode()
    await until(lambda: not any(map(_alive, children)), "the demo's process to end")


async def test_publish_ends_well_after_its_time(service: Served) -> None:
    arguments = ("--demo", "--stamp", "--size", "256x256", "--seconds", "4", service.whip())
    async with running("publish", *arguments) as publish:
        await service.live(timeout_s=START_S)
        frames = (await service.stream())["frames"]
        assert frames["decoded"] > 0
        output, errors = await asyncio.wait_for(publish.communicate(), START_S)
    assert publish.returncode == 0, errors.decode()
    assert b"publishing 256x256 at 25 fps" in output
    await until(lambda: len(service.parts.sessions) == 0, "its session to be deleted")


async def test_publish_plays_a_file(service: Served, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    _write_clip(clip)
    async with running("publish", str(clip), service.whip()) as publish:
        output, errors = await asyncio.wait_for(publish.communicate(), START_S)
    assert publish.returncode == 0, errors.decode()
    assert b"publishing 192x160 at 20 fps" in output
    assert b"the source ended" in output


async def test_watch_without_any_frame_ends_with_3() -> None:
    # Of our own service there is always a picture, if only a card that says why there is no other.
    async with (
        gateway(Switches(silent_after=0)) as (_, url),
        running("watch", url, "--seconds", "0.5", "--json") as watch,
    ):
        output, errors = await asyncio.wait_for(watch.communicate(), START_S)
    assert watch.returncode == 3, errors.decode()
    report = json.loads(output)
    assert (report["frames"], report["size"], report["latency_ms"]) == (0, None, None)


async def test_watch_of_a_stream_that_is_not_there_ends_with_1(service: Served) -> None:
    async with running("watch", service.whep("none")) as watch:
        _, errors = await asyncio.wait_for(watch.communicate(), START_S)
    assert watch.returncode == 1
    assert errors.decode().splitlines()[-1].startswith("streamlift: ")
    assert "409" in errors.decode()


async def _watch(url: str) -> dict[str, Any]:
    """`watch --json`, again as long as nothing is published yet."""
    for _ in range(20):
        async with running("watch", url, "--seconds", "2", "--json") as watch:
            output, errors = await asyncio.wait_for(watch.communicate(), START_S)
        if watch.returncode == 0:
            report: dict[str, Any] = json.loads(output)
            return report
        assert watch.returncode == 1, errors.decode()
    raise AssertionError(f"nothing to watch: {errors.decode()}")


def _children(process: asyncio.subprocess.Process) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _write_clip(path: Path) -> None:
    import av
    import numpy as np
    from av.video.stream import VideoStream

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 192, 160, "yuv420p"
        for number in range(30):
            image = np.full((160, 192, 3), 5 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
async def test_serve_reads_its_tokens_again_at_sighup(tmp_path: Path) -> None:
    config = tmp_path / "service.yaml"
    text = "{{server: {{port: 0}}, auth: {{publish: [p], view: [{}], control: [c]}}}}"
    config.write_text(text.format("old"))
    async with running("serve", "--config", str(config), "--backend", "bicubic") as serve:
        async with httpx.AsyncClient(base_url=await address(serve), trust_env=False) as http:

            async def status(token: str) -> int:
                bearer = {"Authorization": f"Bearer {token}"}
                with suppress(httpx.ConnectError):  # it does not listen yet
                    return (await http.get("/api/v1/streams", headers=bearer)).status_code
                return 0

            async def ready() -> bool:
                return await status("old") == 200

            await until(ready, "the service to listen", timeout_s=START_S)
            config.write_text(text.format("new"))
            serve.send_signal(signal.SIGHUP)

            async def changed() -> bool:
                return await status("new") == 200

            await until(changed, "the new token to be taken")
            assert await status("old") in (401, 429)  # it has guessed at the new one meanwhile
            config.write_text("auth: {view: [")  # cannot be read: all stays as it was
            serve.send_signal(signal.SIGHUP)
            assert await status("new") == 200
        serve.terminate()
        await serve.wait()
    assert serve.returncode in (0, -signal.SIGTERM)
