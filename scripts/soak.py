"""Soak and cost measurement: a publisher, viewers, and the service, each in its own process.

Prints what a viewer saw, what the service counted, its CPU and its memory, and ends with a
markdown row. Exit status 1 when a frame was lost, repeated or dropped without need.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
STREAM = "soak"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the service's process."""

    at_s: float
    cpu_s: float
    rss_mb: float
    threads: int
    descriptors: int


def main() -> int:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), arguments)
        with service(config, arguments.port) as server:
            return run(arguments, server)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--backend", default="bicubic", help="upscaler")
    parser.add_argument("--stabilise", default=None, help="off, lite or strong")
    parser.add_argument("--settings", type=json.loads, default={}, help="of the upscaler, as JSON")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--burst", type=int, default=1)
    parser.add_argument("--viewers", type=int, default=1)
    parser.add_argument("--bitrate", type=int, default=6_000_000, help="of the output")
    parser.add_argument("--publisher", choices=("ffmpeg", "own"), default="ffmpeg")
    parser.add_argument("--port", type=int, default=8190, help="of the service that is started")
    parser.add_argument("--clip", type=Path, help="publish this instead of the built-in scene")
    parser.add_argument("--crowd", help=argparse.SUPPRESS)
    parser.add_argument("--ffmpeg-url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.crowd:
        asyncio.run(be_crowd(arguments.crowd, arguments.viewers))
        sys.exit(0)
    if arguments.ffmpeg_url:
        sys.exit(publish_with_ffmpeg(arguments))
    return arguments


def run(arguments: argparse.Namespace, server: subprocess.Popen[bytes]) -> int:
    seconds = arguments.minutes * 60
    base = f"http://127.0.0.1:{arguments.port}"
    with publisher(arguments, base):
        wait_for(lambda: read(f"{base}/api/v1/streams/{STREAM}")["state"] == "live", 40)
        crowd = gather_crowd(base, arguments.viewers - 1)
        time.sleep(3 + 0.1 * arguments.viewers)
        before = read(f"{base}/api/v1/streams/{STREAM}")["frames"]
        samples = [sample(server.pid)]
        judge = watch(base, seconds)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(min(10.0, max(0.1, deadline - time.monotonic())))
            samples.append(sample(server.pid))
        seen = json.loads(judge.communicate(timeout=30)[0])
        stream = read(f"{base}/api/v1/streams/{STREAM}")
        crowd.send_signal(signal.SIGTERM)
        crowd.wait(30)
    return report(arguments, samples, seen, before, stream)


def report(
    arguments: argparse.Namespace,
    samples: list[Sample],
    seen: dict[str, Any],
    before: dict[str, Any],
    stream: dict[str, Any],
) -> int:
    first, last = samples[0], samples[-1]
    cores = (last.cpu_s - first.cpu_s) / (last.at_s - first.at_s)
    counted = stream["frames"]
    dropped = sum(counted["dropped"].values()) - sum(before["dropped"].values())
    print(json.dumps({"viewer": seen, "stream": stream}, indent=1))
    print(f"cpu: {processor()}, load {os.getloadavg()[0]:.1f}")
    print(f"rss MB: {' '.join(f'{s.rss_mb:.0f}' for s in samples[:: max(1, len(samples) // 12)])}")
    print(
        f"threads {first.threads} -> {last.threads}, fds {first.descriptors} -> {last.descriptors}"
    )
    print(
        "| backend | viewers | minutes | fps | gap max ms | latency p50 / p95 ms | first frame ms "
        "| lost | repeated | dropped | service cores | RSS MB |\n|" + "---|" * 12
    )
    latency = seen["latency_ms"] or {"p50": None, "p95": None}
    name = arguments.backend + (f" + {arguments.stabilise}" if arguments.stabilise else "")
    print(
        f"| {name} | {arguments.viewers} | {arguments.minutes:g} | {seen['fps']} "
        f"| {seen['gap_ms']['max']} | {latency['p50']} / {latency['p95']} "
        f"| {seen['first_frame_ms']} | {seen['lost']} | {seen['repeated']} | {dropped} "
        f"| {cores:.2f} | {first.rss_mb:.0f} -> {last.rss_mb:.0f} |"
    )
    return int(bool(seen["lost"] or seen["repeated"] or dropped))


@contextlib.contextmanager
def service(config: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    server = subprocess.Popen([*streamlift(), "serve", "--config", str(config)])
    try:
        wait_for(lambda: bool(read(f"http://127.0.0.1:{port}/readyz")["ready"]), 60)
        yield server
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)


@contextlib.contextmanager
def publisher(arguments: argparse.Namespace, base: str) -> Iterator[None]:
    url = f"{base}/whip/{STREAM}"
    command = [*streamlift(), "publish", "--stamp", "--burst", str(arguments.burst)]
    command += ["--size", arguments.size, "--fps", str(arguments.fps)]
    command += ["--loop", str(arguments.clip), url] if arguments.clip else ["--demo", url]
    if arguments.publisher == "ffmpeg":
        command = [sys.executable, __file__, "--ffmpeg-url", url]
        command += ["--size", arguments.size, "--fps", str(arguments.fps)]
        command += ["--clip", str(arguments.clip)] if arguments.clip else []
    child = subprocess.Popen(command)
    try:
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(20)


def watch(base: str, seconds: float) -> subprocess.Popen[bytes]:
    command = [*streamlift(), "watch", f"{base}/whep/{STREAM}", "--json"]
    return subprocess.Popen([*command, "--seconds", str(seconds)], stdout=subprocess.PIPE)


def gather_crowd(base: str, viewers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--crowd", f"{base}/whep/{STREAM}"]
    return subprocess.Popen([*command, "--viewers", str(viewers)])


async def be_crowd(url: str, viewers: int) -> None:
    """The child process: viewers that take packets and decode nothing; ends at SIGTERM."""
    from streamlift.config import IceConfig
    from streamlift.frames import Codec
    from streamlift.media.remote.http import Signalling
    from streamlift.media.rtc.connection import Peer
    from streamlift.media.rtc.receiver import ReceiverTap

    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(viewers):
            peer = Peer(IceConfig())
            stack.push_async_callback(peer.close)
            transceiver = peer.add("video", "recvonly")
            peer.prefer(transceiver, [Codec.H264])
            ReceiverTap(transceiver.receiver, lambda packet: None)
            signalling = await stack.enter_async_context(Signalling(url, None))
            await peer.accept(await signalling.post(await peer.offer()))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


def publish_with_ffmpeg(arguments: argparse.Namespace) -> int:
    """The child process: FFmpeg's own WHIP muxer, fed with stamped pictures."""
    import av
    from av.video.stream import VideoStream

    from streamlift.clock import MonotonicClock
    from streamlift.codec.decoder import picture_of
    from streamlift.frames import Size
    from streamlift.media.files.clips import clip_pictures, paced
    from streamlift.media.files.scene import scene_pictures

    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    size = Size(*map(int, arguments.size.split("x")))
    pictures = (
        clip_pictures(arguments.clip, size, loop=True) if arguments.clip else scene_pictures(size)
    )

    async def publish(folder: Path) -> None:
        options = {"handshake_timeout": "8000", **make_certificate(folder)}
        with av.open(arguments.ffmpeg_url, "w", format="whip", options=options) as container:
            stream = container.add_stream("libx264", rate=arguments.fps)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = size.width, size.height, "yuv420p"
            stream.bit_rate = 4_000_000
            context = stream.codec_context
            context.profile, context.gop_size, context.max_b_frames = "Baseline", 50, 0
            context.thread_count = 1
            context.options = {"preset": "superfast", "tune": "zerolatency"}
            container.start_encoding()  # the handshake, before the clock starts
            clock = MonotonicClock()
            number = 0
            async for _, planes in paced(pictures, arguments.fps, clock=clock, stamp=True):
                if stopped:
                    return
                frame = av.VideoFrame(size.width, size.height, "yuv420p")
                for view, plane in zip(picture_of(frame).each(), planes.each(), strict=True):
                    view[:] = plane
                frame.pts = number
                container.mux(stream.encode(frame))
                number += 1

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(publish(Path(folder)))
    return 0


def make_certificate(folder: Path) -> dict[str, str]:
    """A P-256 key and certificate: the one FFmpeg makes by itself fails in DTLS."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=soak", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return {"cert_file": str(cert), "key_file": str(key)}


def write_config(folder: Path, arguments: argparse.Namespace) -> Path:
    backend = {
        "name": "measured",
        "upscaler": arguments.backend,
        "stabilise": arguments.stabilise or "off",
        "settings": dict(arguments.settings),
    }
    config = {
        "server": {"port": arguments.port},
        "encode": {"bitrate_bps": arguments.bitrate},
        "default_backend": "measured",
        "backends": [backend],
    }
    path = folder / "soak.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    return path


def sample(pid: int) -> Sample:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return Sample(
        at_s=time.monotonic(),
        cpu_s=(int(stat[11]) + int(stat[12])) / TICKS,
        rss_mb=int(stat[21]) * PAGE / 1e6,
        threads=int(stat[17]),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
    )


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return platform.processor()


def wait_for(ready: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if ready():
                return
        except (OSError, KeyError):
            pass  # not up yet: that is what is waited for
        if time.monotonic() > deadline:
            raise SystemExit("the service or its stream did not come up in time")
        time.sleep(0.2)


def read(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def streamlift() -> list[str]:
    return [sys.executable, "-m", "streamlift.cli"]


if __name__ == "__main__":
    sys.exit(main())
