"""Interrupted is not done: exit codes after signals, and nothing half-made left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.commands import START_S, address, running
from tests.offline.media import make_clip
from tests.serving import until
from tests.upscalers.weights.shelf import serving_shelf

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough pictures that no machine is done with them at once."""
    path = tmp_path_factory.mktemp("long") / "in.mp4"
    return make_clip(path, frames=700, size=(320, 180), options={"preset": "ultrafast"})


@pytest.mark.parametrize(("sign", "code"), SIGNALS, ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("target", ["out.mp4", "out.gif", "%04d.png"])
async def test_upscale_leaves_nothing_behind(
    sign: signal.Signals, code: int, target: str, long_clip: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    command = ("upscale", str(long_clip), str(folder / target))
    async with running(*command) as process:
        await until(lambda: any(folder.iterdir()), "the target to be begun", timeout_s=START_S)
        process.send_signal(sign)
        _, said = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode == code, said.decode()
    assert "Traceback" not in said.decode()
    assert not list(folder.glob("*.part"))
    assert not list(folder.glob(".*"))
    if "%" not in target:
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("sign", "code"), SIGNALS, ids=["Ctrl-C", "SIGTERM"])
async def test_bench_tells_that_it_was_interrupted(sign: signal.Signals, code: int) -> None:
    async with running("bench", "--quality", "--backend", "compact", "--verbose") as process:
        assert process.stderr is not None
        await asyncio.wait_for(process.stderr.readline(), START_S)  # the model is there
        process.send_signal(sign)
        _, said = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode == code, said.decode()
    assert "Traceback" not in said.decode()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
async def test_serve_ends_with_0(sign: signal.Signals) -> None:
    async with running("serve", "--port", "0", "--backend", "bicubic") as process:
        await address(process)
        process.send_signal(sign)
        _, said = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode == 0, said.decode()
    assert "Traceback" not in said.decode()


@pytest.mark.parametrize(("sign", "code"), SIGNALS, ids=["Ctrl-C", "SIGTERM"])
async def test_watch_tells_that_it_was_interrupted(sign: signal.Signals, code: int) -> None:
    asked = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        with closing(writer):
            await reader.read()  # no answer ever, and its end is the command's

    server = await asyncio.start_server(wait, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with running("watch", f"http://127.0.0.1:{port}/whep/a") as process:
            await asyncio.wait_for(asked.wait(), START_S)
            process.send_signal(sign)
            _, said = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode == code, said.decode()
    assert "Traceback" not in said.decode()


@pytest.mark.parametrize(("sign", "code"), SIGNALS, ids=["Ctrl-C", "SIGTERM"])
async def test_doctor_tells_that_it_was_interrupted(
    sign: signal.Signals, code: int, tmp_path: Path
) -> None:
    config = tmp_path / "pipe.yaml"
    os.mkfifo(config)  # the command waits for what nobody writes until it is told to end
    async with running("doctor", "--config", str(config)) as process:
        writer = await asyncio.to_thread(config.open, "wb")  # returns when the command reads
        with writer:
            process.send_signal(sign)
            _, said = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode == code, said.decode()
    assert "Traceback" not in said.decode()


@pytest.mark.parametrize(("sign", "code"), SIGNALS, ids=["Ctrl-C", "SIGTERM"])
async def test_publish_tells_that_it_was_interrupted(sign: signal.Signals, code: int) -> None:
    asked = asyncio.Event()

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        command = ("publish", "--demo", "--wait", f"http://127.0.0.1:{port}/whip/a")
        async with running(*command) as process:
            await asyncio.wait_for(asked.wait(), START_S)
            process.send_signal(sign)
            _, said = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode == code, said.decode()
    assert "Traceback" not in said.decode()


@pytest.mark.parametrize(("sign", "code"), SIGNALS, ids=["Ctrl-C", "SIGTERM"])
async def test_a_pull_that_is_interrupted_can_be_resumed(
    sign: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came stays as .part, the one command of which that is meant; no lock is left."""
    with serving_shelf() as shelf:
        shelf.files["/flashvsr-v1/LQ_proj_in.ckpt"] = bytes(100_000)
        shelf.pause_after = 10_000
        environment = {
            "STREAMLIFT_WEIGHTS_DIR": str(tmp_path),
            "STREAMLIFT_WEIGHTS_MIRROR": shelf.url,
            "no_proxy": "127.0.0.1",
        }
        arguments = ("weights", "pull", "flashvsr-v1/LQ_proj_in.ckpt", "--allow-unpinned")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "streamlift.cli",
            *arguments,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            await until(lambda: bool(shelf.ranges), "the server to be asked", timeout_s=START_S)
            await asyncio.sleep(0.2)
            process.send_signal(sign)
            _, said = await asyncio.wait_for(process.communicate(), START_S)
        finally:
            shelf.go_on.set()
            if process.returncode is None:
                process.kill()
    assert process.returncode == code, said.decode()
    assert "Traceback" not in said.decode()
    left = {p.name for p in (tmp_path / "flashvsr-v1").iterdir()}
    assert left <= {"LQ_proj_in.ckpt.part"}
