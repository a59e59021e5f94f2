"""A stock Firefox as viewer, without a driver: its page watches by itself and reports back."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripts.children import bound
from tests.clips import coded_clip
from tests.peers import publishing
from tests.serving import Served, until

from streamlift.config import BackendConfig, Config, EncodeConfig, ServerConfig

pytestmark = pytest.mark.client

PLAIN = Config(
    backends=(BackendConfig("bicubic", "bicubic"),),
    default_backend="bicubic",
    encode=EncodeConfig(bitrate_bps=1_500_000),
)
PREFERENCES = {
    "media.autoplay.default": 0,
    "media.peerconnection.ice.loopback": True,
    "media.navigator.permission.disabled": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
    "browser.aboutwelcome.enabled": False,
    "app.update.enabled": False,
    # Cisco's H.264 plugin would be downloaded; without it Firefox watches VP8.
    "media.gmp-manager.updateEnabled": False,
    "media.gmp-gmpopenh264.enabled": False,
}
PAGE = """<!doctype html><video id="v" muted autoplay></video><script>
(async () => {
  try {
    const pc = new RTCPeerConnection();
    pc.addTransceiver('video', {direction: 'recvonly'});
    pc.ontrack = ({track}) => { v.srcObject = new MediaStream([track]); };
    await pc.setLocalDescription(await pc.createOffer());
    const answer = await fetch('WHEP', {method: 'POST',
      headers: {'Content-Type': 'application/sdp'}, body: pc.localDescription.sdp});
    const text = await answer.text();
    if (answer.status !== 201) throw new Error(answer.status + ' ' + text);
    await pc.setRemoteDescription({type: 'answer', sdp: text});
    const report = {};
    for (let turn = 0; turn < 100 && !(report.framesDecoded > 25); turn++) {
      await new Promise((wake) => setTimeout(wake, 200));
      for (const found of (await pc.getStats()).values()) {
        if (found.type === 'inbound-rtp') report.framesDecoded = found.framesDecoded;
        if (found.type === 'codec') report.codec = found.mimeType;
      }
      report.size = [v.videoWidth, v.videoHeight];
      report.ice = pc.iceConnectionState;
    }
    report.offered = pc.localDescription.sdp.match(/a=candidate:.*/g);
    await fetch('/report', {method: 'POST', body: JSON.stringify(report)});
  } catch (error) {
    await fetch('/report', {method: 'POST', body: JSON.stringify({error: String(error)})});
  }
})();
</script>"""


class Page:
    """Serves the page and takes its report."""

    def __init__(self) -> None:
        self.html = ""
        self.report: dict[str, Any] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            body, kind = self.html.encode(), "text/html"
            if head.startswith("POST /report"):
                length = next(
                    int(line.partition(":")[2])
                    for line in head.split("\r\n")
                    if line.lower().startswith("content-length:")
                )
                self.report = json.loads(await reader.readexactly(length))
                body = b""
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        writer.close()


@asynccontextmanager
async def firefox(url: str, profile: Path) -> AsyncIterator[None]:
    path = shutil.which("firefox-esr") or shutil.which("firefox")
    if path is None:
        pytest.skip("no Firefox: install the package firefox-esr")
    lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines))
    process = await asyncio.create_subprocess_exec(
        *bound(path, "--headless", "--no-remote", "--profile", str(profile), url),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HOME": str(profile), "MOZ_CRASHREPORTER_DISABLE": "1"},
        start_new_session=True,
    )
    try:
        yield
    finally:
        # Its content processes are in the same group; they were started by this test.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def test_firefox_without_h264_watches_vp8(
    serve: Callable[..., Awaitable[Served]], tmp_path: Path
) -> None:
    page = Page()
    listening = await asyncio.start_server(page.serve, "127.0.0.1", 0)
    here = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    served = await serve(replace(PLAIN, server=ServerConfig(allowed_origins=(here,))))
    page.html = PAGE.replace("WHEP", served.whep())
    async with listening, publishing(served.whip(), coded_clip(gop=25)):
        await until(
            lambda: any(s.state == "live" for s in served.parts.router.streams()),
            "the stream to be live",
            timeout_s=20,
        )
        async with firefox(here, tmp_path):
            await until(lambda: bool(page.report), "Firefox's report", timeout_s=60)
    report = page.report
    assert "error" not in report, report
    assert report["framesDecoded"] > 25, report
    assert report["codec"] == "video/VP8", report
    assert report["size"] == [512, 512], report
