"""The run that docs/cluster.md records: two workers on two machines behind one service.

    .venv/bin/python -m scripts.cluster_run --seconds 6 --size 256x256

Each worker is in a network namespace of its own, with TLS and a token; one calls itself an H100
(`compact` on the CPU), one an RTX 5090 (`bicubic`). One stamped stream has three viewers. Told for
each part: the longest gap and the frames that never came, of the viewer that had the worst of it.
`control` is a stretch in which nothing happens: on a busy machine it is not short either.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from scripts.children import processor, read, service, stop, streamlift, wait_for
from scripts.two_machines import TOKEN, Worker, machine, why_not

from streamlift.clock import MonotonicClock
from streamlift.media.incoming.video_in import VideoReceiver
from streamlift.media.remote.client import watch_whep
from streamlift.stamp import read_stamp

VIEWERS = 3
SETTLE_S, BACK_S = 1.0, 40.0
CLOCK = MonotonicClock()


@dataclass(eq=False)
class Viewer:
    """Times and stamped numbers of what one viewer saw."""

    seen: list[tuple[float, int]] = field(default_factory=list)

    async def read(self, video: VideoReceiver) -> None:
        async for frame in video:
            stamp = read_stamp(frame.planes.y, scale=2)
            if stamp is not None:
                self.seen.append((CLOCK.now_s(), stamp.number))

    def window(self, start_s: float, end_s: float) -> tuple[float, int]:
        """The longest gap in ms and the frames lost in a stretch of time."""
        inside = [one for one in self.seen if start_s <= one[0] < end_s]
        gaps = [b[0] - a[0] for a, b in pairwise(inside)] or [end_s - start_s]
        return 1000 * max(gaps), sum(max(0, b[1] - a[1] - 1) for a, b in pairwise(inside))


class Run:
    def __init__(self, url: str, viewers: list[Viewer], seconds: float) -> None:
        self._url = url
        self._viewers = viewers
        self._seconds = seconds
        self.rows: list[dict[str, Any]] = []

    async def part(
        self, name: str, act: Callable[[], Awaitable[None]], ends_on: str | None = None
    ) -> None:
        """Do it and look at the viewers: within a second, and until the stream is settled on
        backend `ends_on` and a second more."""
        began_s = CLOCK.now_s()
        await act()
        row: dict[str, Any] = {"part": name}
        at_s = began_s + SETTLE_S
        if ends_on is None:
            await asyncio.sleep(self._seconds)
            end_s = CLOCK.now_s()
        else:
            await asyncio.sleep(SETTLE_S)
            row["settled_s"] = round(await self._settled(ends_on) - began_s, 2)
            await asyncio.sleep(SETTLE_S)
            end_s = CLOCK.now_s()
            row["gap_ms"], row["lost"] = self._worst(began_s - 0.1, at_s)
            row["later_gap_ms"], row["later_lost"] = self._worst(at_s, end_s)
        if ends_on is None:
            row["gap_ms"], row["lost"] = self._worst(began_s, end_s)
        row["load"] = round(os.getloadavg()[0], 1)
        self.rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)

    async def switch(self, backend: str) -> None:
        await asyncio.to_thread(_put, f"{self._url}/api/v1/streams/live/backend", backend)

    async def _settled(self, backend: str) -> float:
        until_s = CLOCK.now_s() + BACK_S
        while True:
            stream = await asyncio.to_thread(read, f"{self._url}/api/v1/streams/live")
            if stream["backend"] == backend and stream["state"] == "live":
                return CLOCK.now_s()
            if CLOCK.now_s() > until_s:
                raise SystemExit(f"not back on {backend} within {BACK_S:g} s: {stream}")
            await asyncio.sleep(0.05)

    def _worst(self, start_s: float, end_s: float) -> tuple[int, int]:
        windows = [viewer.window(start_s, end_s) for viewer in self._viewers]
        return round(max(gap for gap, _ in windows)), max(lost for _, lost in windows)


async def measure(url: str, h100: Worker, rtx5090: Worker, seconds: float) -> list[dict[str, Any]]:
    async with AsyncExitStack() as stack:
        viewers, reading = [], []
        for _ in range(VIEWERS):
            watching = watch_whep(f"{url}/whep/live", None, clock=CLOCK)
            video, _gone = await stack.enter_async_context(watching)
            viewers.append(Viewer())
            reading.append(asyncio.create_task(viewers[-1].read(video)))
        await asyncio.sleep(2.0)
        run = Run(url, viewers, seconds)

        async def nothing() -> None:
            return

        async def kill_and_start(worker: Worker) -> None:
            worker.kill()
            worker.start()

        await run.part("control", nothing)
        await run.part("switch h100 to rtx5090", lambda: run.switch("rtx5090"), "rtx5090")
        await run.part("switch rtx5090 to h100", lambda: run.switch("h100"), "h100")
        await run.part("h100 killed", lambda: kill_and_start(h100), "h100")
        await run.part("switch h100 to rtx5090", lambda: run.switch("rtx5090"), "rtx5090")
        await run.part("rtx5090 killed", lambda: kill_and_start(rtx5090), "rtx5090")
        await run.part("control", nothing)
        for task in reading:
            task.cancel()
        return run.rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each control")
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--port", type=int, default=8437)
    arguments = parser.parse_args()
    if (reason := why_not()) is not None:
        raise SystemExit(f"not here: {reason}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = [
            stack.enter_context(
                Worker(
                    {"name": name, "upscaler": upscaler, "slots": 2},
                    stack.enter_context(machine()),
                    label=label,
                )
            )
            for name, upscaler, label in (
                ("h100", "compact", "NVIDIA H100 80GB HBM3"),
                ("rtx5090", "bicubic", "NVIDIA GeForce RTX 5090"),
            )
        ]
        for worker in workers:
            worker.wait_ready(60.0)
        url = _serve(stack, folder, workers, arguments.port)
        publishing = [*("publish", "--demo", "--stamp", "--size", arguments.size)]
        publisher = subprocess.Popen(streamlift(*publishing, f"{url}/whip/live"))
        stack.callback(stop, publisher)
        wait_for(lambda: read(f"{url}/api/v1/streams/live")["state"] == "live", 30)
        backends = read(f"{url}/api/v1/backends")["backends"]
        rows = asyncio.run(measure(url, workers[0], workers[1], arguments.seconds))
    told = {
        "processor": processor(),
        "size": arguments.size,
        "viewers": VIEWERS,
        "backends": {b["name"]: b["device"] for b in backends},
        "parts": rows,
    }
    print(json.dumps(told, indent=1))
    return 0


def _serve(stack: ExitStack, folder: Path, workers: list[Worker], port: int) -> str:
    """The service with both workers, in a process of its own; returns its URL."""
    tree = {
        "server": {"port": port},
        "default_backend": "h100",
        "backends": [
            {"name": str(w.backend["name"]), "upscaler": w.backend["upscaler"], "link": "remote"}
            for w in workers
        ],
        "cluster": {
            "token": TOKEN,
            "workers": [
                {
                    "backend": str(w.backend["name"]),
                    "address": w.address,
                    "fingerprint": w.fingerprint,
                }
                for w in workers
            ],
        },
    }
    config = folder / "anchor.yaml"
    config.write_text(yaml.safe_dump(tree))
    stack.enter_context(service(config, port))
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        backends = read(f"{url}/api/v1/backends")["backends"]
        return all(b["state"] == "ready" for b in backends)

    wait_for(ready, 30)
    return url


def _put(url: str, backend: str) -> None:
    data = json.dumps({"backend": backend}).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method="PUT")
    with urllib.request.urlopen(request, timeout=5):
        pass


if __name__ == "__main__":
    sys.exit(main())
