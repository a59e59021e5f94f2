"""Streams over a bad network, and what requests for keyframes may cost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import median
from typing import Any

import pytest
from tests.clips import TICKS, coded_clip
from tests.media.lossy import BadNetwork
from tests.peers import publishing, watching
from tests.serving import Served, until

from streamlift.clock import MonotonicClock
from streamlift.codec import is_keyframe
from streamlift.config import BackendConfig, Config, IceConfig
from streamlift.frames import Codec
from streamlift.media.http import Signalling
from streamlift.media.peer import Peer
from streamlift.media.receive import VideoReceiver

pytestmark = pytest.mark.peer

PLAIN = Config(backends=(BackendConfig("bicubic", "bicubic"),), default_backend="bicubic")
SECONDS = 8


@pytest.fixture
async def plain(serve: Callable[..., Awaitable[Served]]) -> Served:
    return await serve(PLAIN)


async def wait_live(served: Served) -> None:
    await until(
        lambda: any(s.state == "live" for s in served.parts.router.streams()),
        "the stream to be live",
        timeout_s=20,
    )


async def test_75_requests_in_5_seconds_make_at_most_11_keyframes(plain: Served) -> None:
    async with publishing(plain.whip(), coded_clip()):
        await wait_live(plain)
        async with watching(plain.whep()) as viewer:
            await viewer.wait_units(5)
            before = len(viewer.units)
            start_s = asyncio.get_running_loop().time()
            for number in range(75):
                await viewer.request_keyframe()
                due_s = start_s + (number + 1) * 5 / 75
                await asyncio.sleep(due_s - asyncio.get_running_loop().time())
            made = sum(is_keyframe(Codec.H264, unit) for _, unit in viewer.units[before:])
    assert 2 <= made <= 11


@contextlib.asynccontextmanager
async def decoding(
    url: str, spoil: Callable[[Peer], BadNetwork]
) -> AsyncIterator[tuple[VideoReceiver, BadNetwork]]:
    """A viewer that decodes, behind a bad network."""
    peer = Peer(IceConfig())
    transceiver = peer.add("video", "recvonly")
    peer.prefer(transceiver, [Codec.H264])
    video = VideoReceiver("viewer", transceiver.receiver, max_side=4096, clock=MonotonicClock())
    network = spoil(peer)
    try:
        async with Signalling(url, None) as signalling:
            await peer.accept(await signalling.post(await peer.offer()))
            async with asyncio.timeout(10):
                assert await peer.wait_connected()
            feedback = asyncio.create_task(video.run_feedback())
            try:
                yield video, network
            finally:
                feedback.cancel()
    finally:
        video.end()
        await peer.close()
        await network.aclose()


async def test_5_percent_loss_and_jitter_leave_20_fps_and_no_freeze(plain: Served) -> None:
    def spoil(peer: Peer) -> BadNetwork:
        return BadNetwork(peer, loss=0.05, delay_s=0.02, jitter_s=0.005, seed=1)

    loop = asyncio.get_running_loop()
    async with publishing(plain.whip(), coded_clip()):
        await wait_live(plain)
        (session,) = plain.parts.sessions
        inner: Any = session.peer
        ingest = spoil(inner._peer)
        async with decoding(plain.whep(), spoil) as (video, egress):
            times: list[float] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SECONDS + 5):
                    async for _ in video:
                        times.append(loop.time())
                        if times[-1] - times[0] > SECONDS:
                            break
            await ingest.aclose()
    assert ingest.lost > 10
    assert egress.lost > 10
    a_second = [sum(times[0] + n <= t < times[0] + n + 1 for t in times) for n in range(1, SECONDS)]
    assert median(a_second) >= 20, a_second
    assert max(b - a for a, b in itertools.pairwise(times)) < 1.0


@pytest.mark.parametrize("fps", [8.0, 60.0])
async def test_the_publishers_rate_is_kept(plain: Served, fps: float) -> None:
    async with publishing(plain.whip(), coded_clip(gop=25), fps=fps):
        await wait_live(plain)
        async with watching(plain.whep()) as viewer:
            await viewer.wait_units(round(2 * fps), timeout_s=20)
    times = [time for time, _ in viewer.units]
    steps = {(b - a) % 2**32 for a, b in itertools.pairwise(times)}
    # Ticks are the publisher's own; a frame dropped on a busy machine makes a double step.
    usual = round(25 / fps * TICKS)
    assert min(steps) in (usual - 1, usual, usual + 1)
