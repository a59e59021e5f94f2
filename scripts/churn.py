"""Viewers that join and leave, ten at a time: what stays behind in the service's process.

Prints descriptors, threads and memory before, after the first fifty and at the end, and a markdown
row. Exit status 1 when descriptors or threads did not come back, or memory grew by 10 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.children import Sample, processor, read, sample, service, streamlift, wait_for

from streamlift.config import IceConfig
from streamlift.frames import Codec
from streamlift.media.remote.http import Signalling
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.receiver import ReceiverTap

AT_ONCE = 10
WARM_UP = 50
PACKETS = 20
SETTLE_S = 6.0
MOST_GROWTH_MB = 10.0
STREAM = "churn"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=200, help="after the warm-up of fifty")
    parser.add_argument("--port", type=int, default=8191)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "churn.yaml"
        settings = {
            "server": {"port": arguments.port},
            "default_backend": "bicubic",
            "limits": {"handshakes_per_address": 2 * AT_ONCE},
        }
        config.write_text(json.dumps(settings), encoding="utf-8")
        with service(config, arguments.port) as server:
            return run(arguments, server.pid)


def run(arguments: argparse.Namespace, pid: int) -> int:
    base = f"http://127.0.0.1:{arguments.port}"
    command = streamlift("publish", "--demo", "--size", "256x256", f"{base}/whip/{STREAM}")
    publisher = subprocess.Popen(command)
    try:
        wait_for(lambda: read(f"{base}/api/v1/streams/{STREAM}")["state"] == "live", 40)
        before = settled(pid)
        asyncio.run(come_and_go(f"{base}/whep/{STREAM}", WARM_UP))
        warm = settled(pid)
        asyncio.run(come_and_go(f"{base}/whep/{STREAM}", arguments.viewers))
        after = settled(pid)
    finally:
        publisher.send_signal(signal.SIGTERM)
        publisher.wait(20)
    return report(arguments.viewers, before, warm, after)


def settled(pid: int) -> Sample:
    """After sessions have ended on both sides."""
    time.sleep(SETTLE_S)
    return sample(pid)


async def come_and_go(url: str, viewers: int) -> None:
    for _ in range(viewers // AT_ONCE):
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(visit(url))


async def visit(url: str) -> None:
    """Watch until some packets have come, then leave properly."""
    enough = asyncio.Event()
    count = 0

    def take(packet: object) -> None:
        nonlocal count
        count += 1
        if count >= PACKETS:
            enough.set()

    async with contextlib.AsyncExitStack() as stack:
        peer = Peer(IceConfig())
        stack.push_async_callback(peer.close)
        transceiver = peer.add("video", "recvonly")
        peer.prefer(transceiver, [Codec.H264])
        ReceiverTap(transceiver.receiver, take)
        signalling = await stack.enter_async_context(Signalling(url, None))
        await peer.accept(await signalling.post(await peer.offer()))
        async with asyncio.timeout(20):
            await enough.wait()


def report(viewers: int, before: Sample, warm: Sample, after: Sample) -> int:
    grown_mb = after.rss_mb - warm.rss_mb
    print(f"cpu: {processor()}")
    print(
        "| viewers | descriptors | threads | RSS MB | growth after the first 50 |\n|" + "---|" * 5
    )
    print(
        f"| {WARM_UP} + {viewers} | {before.descriptors} -> {after.descriptors} "
        f"| {before.threads} -> {warm.threads} -> {after.threads} "
        f"| {before.rss_mb:.0f} -> {warm.rss_mb:.0f} -> {after.rss_mb:.0f} | {grown_mb:.1f} MB |"
    )
    left = after.descriptors > before.descriptors or after.threads > before.threads
    return int(left or grown_mb >= MOST_GROWTH_MB)


if __name__ == "__main__":
    sys.exit(main())
