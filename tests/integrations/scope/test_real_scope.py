"""With a real Scope: our plugin behind a generator in LongLive's cadence, and our pull from it.

Needs `daydream-scope` on the path, or its address in STREAMLIFT_SCOPE. This installs two plugins
into that Scope, in editable form, and starts it on a port of its own.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from aiortc import RTCDataChannel
from tests.serving import serving, until

from streamlift.clock import MonotonicClock
from streamlift.config import BackendConfig, Config, IceConfig, SourcesConfig
from streamlift.frames import Codec, Frame
from streamlift.media.remote.client import watch_whep
from streamlift.media.remote.pulled import Pulled

SCOPE = os.environ.get("STREAMLIFT_SCOPE") or shutil.which("daydream-scope")

pytestmark = [
    pytest.mark.scope,
    pytest.mark.timeout(300),
    pytest.mark.skipif(SCOPE is None, reason="no daydream-scope here"),
]

ROOT = Path(__file__).parents[3]
STANDIN = Path(__file__).parent / "longlive_standin"
FPS = 16.0
SETTLED_S = 5.0
START_S = 240.0


@pytest.fixture(scope="module")
def scope(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a running Scope with our plugin and the stand-in."""
    assert SCOPE is not None
    home = tmp_path_factory.mktemp("scope")
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONASYNCIODEBUG"}
    environment = {
        **inherited,
        # Scope installs plugins by `uv pip`, which would take the environment of these tests.
        "VIRTUAL_ENV": str(Path(SCOPE).resolve().parent.parent),
        "STREAMLIFT_SCOPE_TINY": "1",
        "HF_HUB_OFFLINE": "1",
        "HOME": str(home),
        "DAYDREAM_SCOPE_MODELS_DIR": str(home / "models"),
        "DAYDREAM_SCOPE_LOGS_DIR": str(home / "logs"),
    }
    for plugin in (ROOT, STANDIN):
        subprocess.run([SCOPE, "install", "-e", str(plugin)], check=True, env=environment)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [SCOPE, "--host", "127.0.0.1", "--port", str(port), "-N"]
    process = subprocess.Popen(command, env=environment)
    try:
        _wait_healthy(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


class Seen:
    """Frames of a connection with the time they came, and their counters."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.numbers: list[int] = []
        self.sizes: set[tuple[int, int]] = set()

    def note(self, frame: Frame) -> None:
        self.times_s.append(time.monotonic())
        self.numbers.append(_counter(frame))
        self.sizes.add((frame.size.width, frame.size.height))

    def settled(self) -> list[float]:
        """Gaps between frames from five seconds after the first."""
        late = [t for t in self.times_s if t - self.times_s[0] >= SETTLED_S]
        return [b - a for a, b in pairwise(late)]


async def test_scope_lists_the_plugin_and_its_stage(scope: str) -> None:
    async with httpx.AsyncClient(base_url=scope, trust_env=False) as http:
        plugins = (await http.get("/api/v1/plugins")).json()
        schemas = (await http.get("/api/v1/pipelines/schemas")).json()
    assert "streamlift" in str(plugins)
    assert not plugins.get("failed_plugins")
    stage = schemas["pipelines"]["streamlift-upscale"]
    assert stage["usage"] == ["postprocessor"]
    assert "video" in stage["supported_modes"]


async def test_behind_the_generator_every_frame_comes_evenly_and_twice_as_large(scope: str) -> None:
    async with _generation(scope, {"upscale_model": "bicubic"}) as (seen, _):
        await until(lambda: len(seen.numbers) > 20 * FPS, "20 s of frames", timeout_s=90)
    _check(seen)
    assert seen.sizes == {(1024, 1024)}


async def test_the_model_is_changed_in_mid_stream_without_a_gap(scope: str) -> None:
    async with _generation(scope, {"upscale_model": "bicubic"}) as (seen, channel):
        await until(lambda: len(seen.numbers) > 8 * FPS, "8 s of frames", timeout_s=60)
        channel.send('{"upscale_model": "flashvsr"}')
        await until(lambda: len(seen.numbers) > 20 * FPS, "20 s of frames", timeout_s=90)
    _check(seen)
    assert seen.sizes == {(1024, 1024)}
    assert max(seen.settled()) < 0.150


async def test_a_generator_with_sound_is_not_held_back(scope: str) -> None:
    parameters = {"upscale_model": "bicubic", "sound": True}
    async with _generation(scope, parameters, audio=True) as (seen, _):
        await until(lambda: len(seen.numbers) > 10 * FPS, "10 s of frames", timeout_s=60)
    assert all(b - a == 1 for a, b in pairwise(seen.numbers))


async def test_timestamps_of_the_generator_bring_no_bursts_after_a_change(scope: str) -> None:
    async with _generation(scope, {"upscale_model": "bicubic", "stamps": True}) as (seen, channel):
        await until(lambda: len(seen.numbers) > 8 * FPS, "8 s of frames", timeout_s=60)
        channel.send('{"upscale_model": "flashvsr"}')
        await until(lambda: len(seen.numbers) > 25 * FPS, "25 s of frames", timeout_s=90)
    _check(seen)
    assert max(seen.settled()) < 0.150


@pytest.mark.parametrize("burst", [32, 97])
async def test_large_bursts_lose_nothing(scope: str, burst: int) -> None:
    async with _generation(scope, {"upscale_model": "bicubic", "burst": burst}) as (seen, _):
        await until(lambda: len(seen.numbers) > 4 * burst, "four bursts", timeout_s=120)
    assert all(b - a == 1 for a, b in pairwise(seen.numbers))


async def test_our_service_pulls_from_scope_and_a_viewer_sees_every_frame(scope: str) -> None:
    config = Config(
        sources=SourcesConfig(("127.0.0.1",)),
        default_backend="bicubic",
        backends=(BackendConfig("bicubic", "bicubic"),),
    )
    source = {"kind": "scope", "url": scope, "pipeline": "longlive-standin"}
    seen = Seen()
    async with serving(config) as served, served.http() as http:
        body = {"name": "gen", "source": source}
        assert (await http.post("/api/v1/streams", json=body)).status_code == 201
        await served.live("gen", timeout_s=60)
        async with watch_whep(served.whep("gen"), None, clock=MonotonicClock()) as (video, _):
            async for frame in video:
                seen.note(frame)
                if len(seen.numbers) > 20 * FPS:
                    break
        reset = {"parameters": {"reset_cache": True}}
        assert (await http.put("/api/v1/streams/gen/source", json=reset)).status_code == 202
        before = (await served.stream("gen"))["frames"]["decoded"]

        async def goes_on() -> bool:
            return bool((await served.stream("gen"))["frames"]["decoded"] > before + 3 * FPS)

        await until(goes_on, "the stream to go on", timeout_s=20)
    _check(seen)


@asynccontextmanager
async def _generation(
    scope: str, load_params: Mapping[str, Any], *, audio: bool = False
) -> AsyncIterator[tuple[Seen, RTCDataChannel]]:
    """The stand-in, our stage behind it, and a receiver at the sink."""
    chain = ("longlive-standin", "streamlift-upscale")
    seen = Seen()
    async with httpx.AsyncClient(base_url=scope, trust_env=False, timeout=60) as http:
        pipelines = [
            {"node_id": name, "pipeline_id": name, "load_params": dict(load_params)}
            for name in chain
        ]
        (await http.post("/api/v1/pipeline/load", json={"pipelines": pipelines})).raise_for_status()
        await asyncio.sleep(1.0)  # an old "loaded" may be seen before loading has begun

        async def loaded() -> bool:
            return bool((await http.get("/api/v1/pipeline/status")).json()["status"] == "loaded")

        await until(loaded, "the pipelines to load", timeout_s=120)
        pulled = Pulled(
            "scope",
            IceConfig(),
            codecs=(Codec.H264,),
            audio=audio,
            max_side=2048,
            clock=MonotonicClock(),
        )
        channel = pulled.peer.connection.createDataChannel("parameters", ordered=True)
        offer = {
            "sdp": await pulled.peer.offer(),
            "type": "offer",
            "initialParameters": _chain_parameters(chain, load_params),
        }
        response = await http.post("/api/v1/webrtc/offer", json=offer)
        response.raise_for_status()
        await pulled.peer.accept(response.json()["sdp"])
        await pulled.peer.connected()

        async def take() -> None:
            async for frame in pulled.video:
                seen.note(frame)

        async with asyncio.TaskGroup() as tasks:
            feedback = tasks.create_task(pulled.video.run_feedback())
            tasks.create_task(take())
            yield seen, channel
            feedback.cancel()
            await pulled.aclose()
        await http.delete(f"/api/v1/webrtc/offer/{response.json()['sessionId']}")


def _chain_parameters(chain: tuple[str, ...], parameters: Mapping[str, Any]) -> dict[str, Any]:
    nodes = [{"id": name, "type": "pipeline", "pipeline_id": name} for name in chain]
    edges = [
        {
            "from": one,
            "from_port": "video",
            "to_node": other,
            "to_port": "video",
            "kind": "stream",
        }
        for one, other in pairwise((*chain, "output"))
    ]
    graph = {"nodes": [*nodes, {"id": "output", "type": "sink"}], "edges": edges}
    return {"input_mode": "text", "pipeline_ids": list(chain), "graph": graph, **parameters}


def _check(seen: Seen) -> None:
    """No frame lost, the rate within 5 %, even spacing."""
    assert all(b - a == 1 for a, b in pairwise(seen.numbers))
    gaps = seen.settled()
    assert len(gaps) / sum(gaps) == pytest.approx(FPS, rel=0.05)
    assert float(np.percentile(gaps, 95)) < 1.5 / FPS


def _counter(frame: Frame) -> int:
    luma, block = frame.planes.y, frame.size.width // 16
    number = 0
    for bit in range(16):
        centre = luma[block // 4 : block // 2, bit * block + block // 4 : (bit + 1) * block - 4]
        number = number << 1 | int(float(np.mean(centre)) > 128)
    return number


def _wait_healthy(url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", trust_env=False, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError(f"Scope did not become healthy within {START_S:g} s")
