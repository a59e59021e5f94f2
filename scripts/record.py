"""Records what the plots of the docs are drawn from, as JSON: python -m scripts.record --help.

overload FILE   a minute with one stream that goes from idle to overload and back
picture FILE    what each way of enlarging gains, and what it costs

Only on a machine that does nothing else; then `python -m scripts.plot`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from scripts.children import processor, read, sample, service, stop, streamlift, wait_for

from streamlift.clock import MonotonicClock
from streamlift.media.remote.client import watch_whep
from streamlift.stamp import elapsed_ms, read_stamp

STREAM = "seen"
PHASE_S = 20.0
"""Idle, overload, idle again."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    overload = kinds.add_parser("overload")
    overload.add_argument("file", type=Path)
    overload.add_argument("--backend", default="compact", help="upscaler")
    overload.add_argument("--stabilise", default="lite")
    overload.add_argument("--more", type=int, default=4, help="streams that come and go")
    overload.add_argument("--phase", type=float, default=PHASE_S, help="seconds of each of three")
    overload.add_argument("--port", type=int, default=8191)
    picture = kinds.add_parser("picture")
    picture.add_argument("file", type=Path)
    picture.add_argument("clips", nargs="*", type=Path, help="also on these videos")
    picture.add_argument("--frames", type=int, default=16, help="of each clip")
    picture.add_argument("--bitrate", type=int, default=1_500_000)
    arguments = parser.parse_args()
    record = record_overload if arguments.kind == "overload" else record_picture
    found = {"processor": processor(), "date": time.strftime("%Y-%m-%d"), **record(arguments)}
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    arguments.file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Seen:
    """One picture at the viewer: when, and how long after it was drawn at the publisher."""

    at_s: float
    delay_ms: float


def record_overload(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as children:
        config = Path(folder, "overload.yaml")
        config.write_text(json.dumps(overload_config(arguments)), encoding="utf-8")
        server = children.enter_context(service(config, arguments.port))
        base = f"http://127.0.0.1:{arguments.port}"
        start(children, "--stamp", f"{base}/whip/{STREAM}")
        wait_for(lambda: read(f"{base}/api/v1/streams/{STREAM}")["state"] == "live", 40)
        return asyncio.run(watch_over(arguments, base, server.pid))


def overload_config(arguments: argparse.Namespace) -> dict[str, Any]:
    """Room for all streams, so that none is refused: what is asked is how they degrade."""
    backend = {
        "name": "measured",
        "upscaler": arguments.backend,
        "stabilise": arguments.stabilise,
        "slots": arguments.more + 2,
    }
    return {
        "server": {"port": arguments.port},
        "default_backend": "measured",
        "limits": {"publishers_per_token": 64, "handshakes_per_address": 64},
        "backends": [backend, {"name": "bicubic", "upscaler": "bicubic", "slots": 64}],
    }


async def watch_over(arguments: argparse.Namespace, base: str, pid: int) -> dict[str, Any]:
    """Watch the one stream for three phases; in the second the others are there."""
    seen: list[Seen] = []
    seconds = []
    async with watch_whep(f"{base}/whep/{STREAM}", None, clock=MonotonicClock()) as (video, _):
        watching = asyncio.create_task(look(video, seen))
        await asyncio.sleep(2.0)
        began_s = time.monotonic()
        before = await asyncio.to_thread(look_up, base, pid)
        with contextlib.ExitStack() as others:
            for second in range(round(3 * arguments.phase)):
                if second == round(arguments.phase):
                    for number in range(arguments.more):
                        start(others, f"{base}/whip/other-{number}")
                if second == round(2 * arguments.phase):
                    await asyncio.to_thread(others.close)  # the viewer goes on meanwhile
                await asyncio.sleep(max(0.0, began_s + second + 1 - time.monotonic()))
                now = await asyncio.to_thread(look_up, base, pid)
                since_s = time.monotonic() - 1.0
                recent = sorted(one.delay_ms for one in seen if one.at_s >= since_s)
                seconds.append({"second": second + 1, **told(recent, before, now)})
                print(json.dumps(seconds[-1]), flush=True)
                before = now
        watching.cancel()
    return {
        "command": f"{arguments.backend}, stabilise {arguments.stabilise}, {arguments.more} more",
        "phase_s": arguments.phase,
        "seconds": seconds,
    }


async def look(video: Any, seen: list[Seen]) -> None:
    async for frame in video:
        now_s = time.monotonic()
        if (stamp := read_stamp(frame.planes.y, scale=2)) is not None:
            seen.append(Seen(now_s, elapsed_ms(stamp, now_s)))


@dataclass(frozen=True, slots=True)
class LookUp:
    """What the service says of the stream, and what its process has used."""

    at_s: float
    cpu_s: float
    dropped: dict[str, int]
    others: list[float]
    """p95 of the other streams' own measured delay, ms."""
    stages: dict[str, float]
    """p95 of the stages of this one, ms, over its last 256 frames."""


def look_up(base: str, pid: int) -> LookUp:
    streams = {one["name"]: one for one in read(f"{base}/api/v1/streams")["streams"]}
    used = sample(pid)
    totals = [one["latency_ms"].get("total") for name, one in streams.items() if name != STREAM]
    p95s = [total["p95"] for total in totals if total]
    seen = streams[STREAM]
    stages = {stage: value["p95"] for stage, value in seen["latency_ms"].items()}
    return LookUp(used.at_s, used.cpu_s, seen["frames"]["dropped"], p95s, stages)


def told(delays_ms: list[float], before: LookUp, now: LookUp) -> dict[str, Any]:
    dropped = {reason: n - before.dropped.get(reason, 0) for reason, n in now.dropped.items()}
    return {
        "shown": len(delays_ms),
        "p50_ms": round(median(delays_ms), 1) if delays_ms else None,
        "p95_ms": round(delays_ms[int(0.95 * len(delays_ms))], 1) if delays_ms else None,
        "dropped": {reason: n for reason, n in dropped.items() if n > 0},
        "cores": round((now.cpu_s - before.cpu_s) / (now.at_s - before.at_s), 2),
        "others_p95_ms": now.others,
        "stages_p95_ms": now.stages,
    }


def start(children: contextlib.ExitStack, *arguments: str) -> None:
    command = streamlift("publish", "--demo", *arguments)
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    children.callback(stop, child)


def record_picture(arguments: argparse.Namespace) -> dict[str, Any]:
    """Mean PSNR over bicubic and CPU ms of every tier, with and without stabiliser, and rivals."""
    from streamlift.bench import synthetic_clips, upscaler_method
    from streamlift.frames import Stabilise
    from streamlift.quality.table import bicubic, lanczos, quality_table, read_clip
    from streamlift.upscalers.compact import Compact, Precision, Tier

    methods = [bicubic(), lanczos()]
    for tier in Tier:
        for strength in (Stabilise.OFF, Stabilise.LITE):
            upscaler = Compact(tier, Precision.INT8)
            methods.append(upscaler_method(upscaler, strength, name=f"compact {tier}"))
    sets = {"synthetic": synthetic_clips(frames=arguments.frames)}
    if arguments.clips:
        sets["given"] = [read_clip(path, frames=arguments.frames) for path in arguments.clips]
    found = []
    for name, clips in sets.items():
        rows = quality_table(clips, methods, [arguments.bitrate])
        plain = {row.clip: row.psnr for row in rows if row.method == methods[0].name}
        for method in methods:
            own = [row for row in rows if row.method == method.name]
            gained = fmean(row.psnr - plain[row.clip] for row in own)
            found.append(
                {
                    "clips": name,
                    "method": method.name,
                    "gained_db": round(gained, 3),
                    "flicker": round(fmean(row.flicker for row in own), 3),
                    "cpu_ms": round(own[0].cpu_ms, 2),
                }
            )
    return {"bitrate_bps": arguments.bitrate, "rows": found}


if __name__ == "__main__":
    main()
