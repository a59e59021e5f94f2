"""A stock Chromium as publisher and as viewer."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Page, async_playwright
from tests.clips import coded_clip
from tests.machine import in_time
from tests.peers import publishing
from tests.serving import Served, until

from streamlift.config import BackendConfig, Config, EncodeConfig
from streamlift.frames import Size
from streamlift.media.files.scene import scene_pictures
from streamlift.media.outgoing.whep_viewer import WhepViewer

pytestmark = [pytest.mark.browser, pytest.mark.peer]

PLAIN = Config(backends=(BackendConfig("bicubic", "bicubic"),), default_backend="bicubic")
FIRST_PICTURE_MS = 1500
"""On a busy machine; idle it is under 300 ms."""

PUBLISH = """async (url) => {
  const media = await navigator.mediaDevices.getUserMedia(
    {video: {width: 512, height: 512, frameRate: 25}});
  window.pc = new RTCPeerConnection();
  pc.addTransceiver(media.getVideoTracks()[0],
    {direction: 'sendonly', sendEncodings: [{maxBitrate: 4000000}]});
  await pc.setLocalDescription(await pc.createOffer());
  const answer = await fetch(url,
    {method: 'POST', headers: {'Content-Type': 'application/sdp'}, body: pc.localDescription.sdp});
  if (answer.status !== 201) throw new Error(await answer.text());
  await pc.setRemoteDescription({type: 'answer', sdp: await answer.text()});
}"""

WATCH = """async (url) => {
  window.pc = new RTCPeerConnection();
  pc.addTransceiver('video', {direction: 'recvonly'});
  const video = document.createElement('video');
  video.muted = video.autoplay = true;
  document.body.append(video);
  pc.ontrack = ({track}) => { video.srcObject = new MediaStream([track]); };
  await pc.setLocalDescription(await pc.createOffer());
  const start = performance.now();
  const first = new Promise((shown) => video.requestVideoFrameCallback(
    () => shown(performance.now() - start)));
  const answer = await fetch(url,
    {method: 'POST', headers: {'Content-Type': 'application/sdp'}, body: pc.localDescription.sdp});
  if (answer.status !== 201) throw new Error(await answer.text());
  await pc.setRemoteDescription({type: 'answer', sdp: await answer.text()});
  return await first;
}"""

STATISTICS = """async (type) => {
  for (const report of (await pc.getStats()).values()) if (report.type === type) return report;
}"""


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of the demo's scene with grain, which no encoder can make small."""
    path = tmp_path_factory.mktemp("clip") / "clip512.y4m"
    rng = np.random.default_rng(5)
    pictures = scene_pictures(Size(512, 512))
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W512 H512 F25:1 Ip A1:1 C420jpeg\n")
        for _ in range(50):
            planes = next(pictures)
            grain = rng.normal(0, 8, planes.y.shape)
            luma = np.clip(planes.y + grain, 16, 235).astype(np.uint8)
            file.write(b"FRAME\n" + luma.tobytes() + planes.u.tobytes() + planes.v.tobytes())
    return path


@asynccontextmanager
async def chromium(url: str, *flags: str) -> AsyncIterator[Page]:
    path = os.environ.get("STREAMLIFT_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("no Chromium: install the package chromium or set STREAMLIFT_CHROMIUM")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                *flags,
            ],
        )
        try:
            page = await browser.new_page()
            await page.goto(f"{url}/healthz")  # any page of the service: a secure context
            yield page
        finally:
            await browser.close()


async def test_a_detailed_clip_stays_whole_and_reaches_3_mbit_s(
    serve: Callable[..., Awaitable[Served]], clip: Path
) -> None:
    async def run() -> list[str]:
        served = await serve(PLAIN)
        async with chromium(served.url, f"--use-file-for-fake-video-capture={clip}") as page:
            await page.evaluate(PUBLISH, served.whip())
            loop = asyncio.get_running_loop()
            start_s = loop.time()
            before = await page.evaluate(STATISTICS, "outbound-rtp")
            rate_bps, sent, widths = 0.0, before, set()
            while loop.time() - start_s < 12 and (rate_bps < 3e6 or loop.time() - start_s < 6):
                await asyncio.sleep(1)
                sent = await page.evaluate(STATISTICS, "outbound-rtp")
                widths.add(sent.get("frameWidth"))
                passed_ms = sent["timestamp"] - before["timestamp"]
                rate_bps = (sent["bytesSent"] - before["bytesSent"]) * 8000 / max(1, passed_ms)
                before = sent
        told = {name: sent.get(name) for name in ("targetBitrate", "qualityLimitationReason")}
        problems = [] if widths == {512} else [f"widths {widths}, {told}"]
        return problems if rate_bps >= 3e6 else [*problems, f"{rate_bps / 1e6:.1f} Mbit/s, {told}"]

    await in_time(run)


@asynccontextmanager
async def shown(served: Served) -> AsyncIterator[tuple[Page, float]]:
    """A page that shows the stream, and the milliseconds its first picture took."""
    async with publishing(served.whip(), coded_clip(gop=0)):
        await until(
            lambda: any(s.state == "live" for s in served.parts.router.streams()),
            "the stream to be live",
            timeout_s=20,
        )
        async with chromium(served.url) as page:
            yield page, await page.evaluate(WATCH, served.whep())


async def test_a_viewer_sees_a_picture_soon_from_one_keyframe_and_without_a_freeze(
    serve: Callable[..., Awaitable[Served]],
) -> None:
    async def run() -> list[str]:
        served = await serve(PLAIN)
        async with shown(served) as (page, first_ms):
            await asyncio.sleep(5)
            report = await page.evaluate(STATISTICS, "inbound-rtp")
            (viewer,) = [s.peer for s in served.parts.sessions if isinstance(s.peer, WhepViewer)]
            slow = viewer.slow
        assert (report["frameWidth"], report["frameHeight"]) == (512, 512)
        problems = ["slow"] if slow else []
        problems += [f"{report['freezeCount']} freezes"] if report["freezeCount"] else []
        problems += [f"{first_ms:.0f} ms to the picture"] if first_ms > FIRST_PICTURE_MS else []
        keyframes = report["keyFramesDecoded"]
        return problems if keyframes == 1 else [*problems, f"{keyframes} keyframes"]

    await in_time(run)


async def test_a_viewer_without_h264_gets_vp8(serve: Callable[..., Awaitable[Served]]) -> None:
    served = await serve(replace(PLAIN, encode=EncodeConfig(bitrate_bps=1_000_000)))
    async with shown(served) as (page, _):
        vp8_only: Any = WATCH.replace(
            "pc.addTransceiver('video', {direction: 'recvonly'});",
            """pc.addTransceiver('video', {direction: 'recvonly'}).setCodecPreferences(
              RTCRtpReceiver.getCapabilities('video').codecs.filter(
                (codec) => ['video/VP8', 'video/rtx'].includes(codec.mimeType)));""",
        )
        await page.evaluate(vp8_only, served.whep())
        report = await page.evaluate(STATISTICS, "inbound-rtp")
        codec = await page.evaluate(STATISTICS, "codec")
    assert report["framesDecoded"] >= 1
    assert codec["mimeType"] == "video/VP8"


@pytest.mark.parametrize(
    "sizes",
    [
        {"q": 4, "h": 2, "f": 1},
        {"f": 1, "h": 2, "q": 4},
        {"r0": 4, "r1": 2, "r2": 1},
        {"0": 1, "1": 2, "2": 4},
        {"a": 1, "b": 2},
    ],
)
async def test_of_several_sizes_the_largest_arrives(
    serve: Callable[..., Awaitable[Served]], clip: Path, sizes: dict[str, int]
) -> None:
    encodings = [
        f"{{rid: '{rid}', scaleResolutionDownBy: {scale}}}" for rid, scale in sizes.items()
    ]
    publish: Any = PUBLISH.replace("[{maxBitrate: 4000000}]", f"[{', '.join(encodings)}]")
    served = await serve(PLAIN)
    async with chromium(served.url, f"--use-file-for-fake-video-capture={clip}") as page:
        await page.evaluate(publish, served.whip())
        await until(
            lambda: any(
                s.publisher is not None and s.publisher.size == Size(512, 512)
                for s in served.parts.router.streams()
            ),
            "pictures of 512x512",
            timeout_s=30,
        )


@pytest.mark.parametrize("order", ["audio first", "video first"])
async def test_a_publisher_with_sound_connects_in_either_order(
    serve: Callable[..., Awaitable[Served]], order: str
) -> None:
    tracks = ["getAudioTracks", "getVideoTracks"]
    if order == "video first":
        tracks.reverse()
    adding = "".join(f"pc.addTrack(media.{name}()[0], media);" for name in tracks)
    publish: Any = PUBLISH.replace("frameRate: 25}", "frameRate: 25}, audio: true").replace(
        """pc.addTransceiver(media.getVideoTracks()[0],
    {direction: 'sendonly', sendEncodings: [{maxBitrate: 4000000}]});""",
        adding,
    )
    assert adding in publish
    served = await serve(PLAIN)
    async with chromium(served.url) as page:
        await page.evaluate(publish, served.whip())
        await until(
            lambda: any(s.state == "live" for s in served.parts.router.streams()),
            "the stream to be live",
            timeout_s=20,
        )
        publisher = served.parts.router.stream("live").publisher
        assert publisher is not None
        assert publisher.audio is not None
