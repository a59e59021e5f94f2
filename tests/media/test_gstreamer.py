"""GStreamer's webrtcbin as publisher; it runs under the system's Python."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from scripts.children import bound
from tests.clips import decode
from tests.peers import watching
from tests.serving import Served, until

from streamlift.config import BackendConfig, Config
from streamlift.frames import Codec

pytestmark = pytest.mark.client

PYTHON = "/usr/bin/python3"
PROBE = """
import gi
gi.require_version('Gst', '1.0'); gi.require_version('GstWebRTC', '1.0')
from gi.repository import Gst, GstWebRTC
Gst.init(None)
missing = [e for e in ('webrtcbin', 'nicesrc', 'x264enc', 'rtph264pay', 'dtlsenc', 'srtpenc',
                       'opusenc', 'rtpopuspay')
           if Gst.ElementFactory.find(e) is None]
raise SystemExit(f'no {missing}' if missing else 0)
"""


@pytest.fixture(scope="session")
def publisher() -> str:
    """The script's path; skips without GStreamer."""
    try:
        probe = subprocess.run([PYTHON, "-c", PROBE], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no system Python with GStreamer: {error}")
    if probe.returncode:
        pytest.skip("GStreamer is not there: " + probe.stderr.decode().strip()[-200:])
    return str(Path(__file__).parent / "gst_publisher.py")


@pytest.mark.parametrize("order", ["video", "audio,video", "video,audio"])
async def test_gstreamer_publishes_and_its_pictures_are_shown(
    serve: Callable[..., Awaitable[Served]], publisher: str, order: str
) -> None:
    plain = Config(backends=(BackendConfig("bicubic", "bicubic"),), default_backend="bicubic")
    served = await serve(plain)
    process = await asyncio.create_subprocess_exec(
        *bound(PYTHON, publisher, served.whip(), "60", order), stderr=asyncio.subprocess.PIPE
    )
    try:
        await until(
            lambda: any(s.state == "live" for s in served.parts.router.streams()),
            "the stream to be live",
            timeout_s=30,
        )
        async with watching(served.whep()) as viewer:
            await viewer.wait_units(25, timeout_s=20)
        source = served.parts.router.stream("live").publisher
        assert source is not None
        assert (source.audio is not None) == ("audio" in order)
        pictures = decode([unit for _, unit in viewer.units], Codec.H264)
        assert {(p.width, p.height) for p in pictures} == {(1024, 1024)}
    finally:
        process.kill()
        await process.communicate()
