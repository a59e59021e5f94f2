"""The whole service for minutes with real peers, each in its own process, and what must hold then.

A publisher, a judge that decodes everything, and a crowd. With `--faults` one of the crowd leaves
and another comes every few seconds, and in each minute something goes wrong. Exit status 1 when a
frame is neither shown nor counted, when one is shown twice, when the delay has no bound, or when
memory, threads or descriptors grow. How fast the machine is decides nothing; it is printed as a
markdown row, and all samples go to `--json`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from scripts.children import (
    Sample,
    bound,
    processor,
    read,
    sample,
    service,
    stop,
    streamlift,
    wait_for,
)
from scripts.soak_peers import PUBLISHER_STEP

STREAM = "soak"
SAMPLE_S = 5.0
FAULT_AFTER_S = 20.0
"""Into each minute."""
AWAY_S = 3.0
"""How long a killed publisher stays away, and a stopped one stands still."""
SPARE_DESCRIPTORS, SPARE_THREADS = 8, 3
"""What a session on its way in or out may hold when a sample is taken."""
SPARE_MEMORY, SPARE_MEMORY_SHORT = 1.15, 1.6
SPARE_MEMORY_MB = 40.0
SHORT_S = 600.0
"""A run shorter than this still warms up: each fault loads something for the first time."""


def main() -> int:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), arguments)
        with service(config, arguments.port) as server:
            return Soak(arguments, server).run()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--backend", default="bicubic", help="upscaler")
    parser.add_argument("--stabilise", default=None, help="off, lite or strong")
    parser.add_argument("--settings", type=json.loads, default={}, help="of the upscaler, as JSON")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--burst", type=int, default=1)
    parser.add_argument("--viewers", type=int, default=1, help="the judge and a crowd")
    parser.add_argument("--bitrate", type=int, default=6_000_000, help="of the output")
    parser.add_argument("--publisher", choices=("ffmpeg", "own"), default="ffmpeg")
    parser.add_argument("--port", type=int, default=8190, help="of the service that is started")
    parser.add_argument("--clip", type=Path, help="publish this instead of the built-in scene")
    parser.add_argument("--faults", action="store_true", help="viewers come and go, faults happen")
    parser.add_argument(
        "--delay-bound-ms", type=float, default=2500.0, help="of the service's own p95"
    )
    parser.add_argument("--json", type=Path, help="write all samples and findings there")
    return parser.parse_args()


def write_config(folder: Path, arguments: argparse.Namespace) -> Path:
    backend = {"name": "measured", "upscaler": arguments.backend, "settings": arguments.settings}
    if arguments.stabilise:
        backend["stabilise"] = arguments.stabilise
    config = {
        "server": {"port": arguments.port},
        "encode": {"bitrate_bps": arguments.bitrate},
        "default_backend": "measured",
        "limits": {"handshakes_per_address": 64},  # the whole crowd comes from here
        "backends": [backend, {"name": "bicubic", "upscaler": "bicubic"}],
    }
    path = folder / "soak.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    return path


class Soak:
    """One run: its children, its samples and its faults."""

    def __init__(self, arguments: argparse.Namespace, server: subprocess.Popen[bytes]) -> None:
        self._arguments = arguments
        self._server = server
        self._base = f"http://127.0.0.1:{arguments.port}"
        self._publisher: subprocess.Popen[bytes] | None = None
        self._publishers = 0
        self._samples: list[Sample] = []
        self._delays_ms: list[float] = []
        self._faults: list[str] = []

    def run(self) -> int:
        seconds = self._arguments.minutes * 60
        idle = sample(self._server.pid)
        with contextlib.ExitStack() as children:
            self._start_publisher()
            children.callback(self._end_publisher)
            wait_for(lambda: self._stream()["state"] == "live", 40)
            before = self._stream()["frames"]
            judge = children.enter_context(self._child("judge", "--seconds", str(seconds)))
            crowd = self._arguments.viewers - 1
            churn = ["--churn"] if self._arguments.faults else []
            children.enter_context(self._child("crowd", "--viewers", str(crowd), *churn))
            self._watch_over(seconds)
            seen = json.loads(judge.communicate(timeout=30)[0] or b"{}")
            stream = self._stream()
            if not seen:
                raise SystemExit(f"the judge saw nothing: {stream}")
        counted = self._settled()
        return self._report(seen, before, stream, counted, idle)

    def _watch_over(self, seconds: float) -> None:
        """Take samples, and let something go wrong in each minute, until the time is over."""
        start_s = time.monotonic()
        next_fault_s = start_s + FAULT_AFTER_S
        kinds = [self._kill_publisher, self._switch_and_back, self._send_junk, self._stop_publisher]
        while (left_s := start_s + seconds - time.monotonic()) > 0:
            self._samples.append(sample(self._server.pid))
            delay_ms = self._stream()["latency_ms"].get("total") or {"p95": 0.0}
            self._delays_ms.append(delay_ms["p95"] or 0.0)
            if self._arguments.faults and time.monotonic() >= next_fault_s:
                next_fault_s += 60
                fault = kinds[len(self._faults) % len(kinds)]
                self._faults.append(fault.__name__.removeprefix("_"))
                print(f"{seconds - left_s:.0f} s: {self._faults[-1]}", flush=True)
                fault()
            time.sleep(min(SAMPLE_S, max(0.0, left_s)))

    # ---- faults ----

    def _kill_publisher(self) -> None:
        assert self._publisher is not None
        self._publisher.kill()
        self._publisher.wait()
        time.sleep(AWAY_S)
        self._start_publisher()

    def _stop_publisher(self) -> None:
        """As a network that carries nothing for a while."""
        assert self._publisher is not None
        self._publisher.send_signal(signal.SIGSTOP)
        time.sleep(AWAY_S)
        self._publisher.send_signal(signal.SIGCONT)

    def _switch_and_back(self) -> None:
        for name in ("bicubic", "measured"):
            # Refused while the backend recovers from what a busy machine did to it.
            self._send("PUT", f"/api/v1/streams/{STREAM}/backend", json.dumps({"backend": name}))
            time.sleep(AWAY_S)

    def _send_junk(self) -> None:
        """Offers that are none, and requests for what is not there."""
        for number in range(50):
            answers = {
                self._send("POST", f"/whip/junk-{number}", "v=0\r\n" * number),
                self._send("POST", f"/whep/{STREAM}", "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n"),
                self._send("DELETE", f"/sessions/junk-{number}", ""),
            }
            assert all(400 <= answer < 500 for answer in answers), answers

    # ---- children ----

    def _start_publisher(self) -> None:
        arguments, url = self._arguments, f"{self._base}/whip/{STREAM}"
        common = ["--size", arguments.size, "--fps", str(arguments.fps)]
        if arguments.publisher == "own":
            source = ["--loop", str(arguments.clip)] if arguments.clip else ["--demo"]
            command = ["publish", "--stamp", "--burst", str(arguments.burst)]
            command = streamlift(*command, *common, *source, url)
        else:
            received = self._stream()["frames"]["received"] if self._publishers else 0
            first = self._publishers * PUBLISHER_STEP + received
            command = _peer("publish", url, "--first", str(first), *common)
            command += ["--clip", str(arguments.clip)] if arguments.clip else []
        self._publishers += 1
        self._publisher = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def _end_publisher(self) -> None:
        if self._publisher is not None:
            stop(self._publisher)

    @contextlib.contextmanager
    def _child(self, role: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        command = _peer(role, f"{self._base}/whep/{STREAM}", *options)
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            yield child
        finally:
            stop(child)

    # ---- the service ----

    def _stream(self) -> Any:
        return read(f"{self._base}/api/v1/streams/{STREAM}")

    def _send(self, method: str, path: str, body: str) -> int:
        kind = "application/json" if body.startswith("{") else "application/sdp"
        request = urllib.request.Request(
            self._base + path, body.encode(), {"Content-Type": kind}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def _settled(self) -> dict[str, Any]:
        """The counts when publishers and viewers are gone and no frame is on its way any more."""
        counts: dict[str, Any] = {}

        def still() -> bool:
            nonlocal counts
            former, counts = counts, self._stream()["frames"]
            return counts == former

        time.sleep(1)
        _try_for(still, 10)
        return counts

    # ---- the verdict ----

    def _report(
        self,
        seen: dict[str, Any],
        before: dict[str, Any],
        stream: dict[str, Any],
        counted: dict[str, Any],
        idle: Sample,
    ) -> int:
        last = sample(self._server.pid)
        samples = self._samples
        dropped = _dropped(stream["frames"]) - _dropped(before)
        findings = [
            *accounting(counted),
            *viewing(seen, dropped),
            *_delay(self._delays_ms, self._arguments.delay_bound_ms),
            *growth(samples, idle, last),
        ]
        record = {
            "arguments": {k: str(v) for k, v in vars(self._arguments).items()},
            "cpu": processor(),
            "load": os.getloadavg()[0],
            "faults": self._faults,
            "viewer": seen,
            "stream": stream,
            "counted": counted,
            "samples": [dataclasses.asdict(s) for s in (idle, *samples, last)],
            "delays_p95_ms": self._delays_ms,
            "findings": findings,
        }
        if self._arguments.json:
            self._arguments.json.write_text(json.dumps(record, indent=1), encoding="utf-8")
        print(json.dumps({k: record[k] for k in ("viewer", "counted", "faults")}, indent=1))
        print(f"cpu: {record['cpu']}, load {record['load']:.1f}")
        print(f"rss MB: {_some(samples, lambda s: round(s.rss_mb))}")
        print(f"threads: {_some(samples, lambda s: s.threads)}, after: {last.threads}")
        print(f"descriptors: {_some(samples, lambda s: s.descriptors)}, after: {last.descriptors}")
        print(_row(self._arguments, samples, seen, dropped))
        for finding in findings:
            print(f"FOUND: {finding}")
        return int(bool(findings))


def accounting(counted: dict[str, Any]) -> list[str]:
    """Every frame that came in went out to the viewers or is counted as dropped.

    While two lanes run, both may leave out the same frame: more may be told than came in.
    """
    missing = counted["received"] - counted["encoded"] - _dropped(counted)
    return [f"{missing} frames are neither shown nor counted: {counted}"] if missing > 0 else []


def viewing(seen: dict[str, Any], dropped: int) -> list[str]:
    """A viewer keeps its connection, misses only what is counted, and sees nothing twice."""
    found = []
    if seen["lost"] > dropped:
        found.append(f"a viewer misses {seen['lost']} frames, the service tells of {dropped}")
    if seen["repeated"]:
        found.append(f"a viewer saw {seen['repeated']} frames again")
    if seen["ended"]:
        found.append("a viewer's connection ended")
    return found


def _delay(delays_ms: list[float], bound_ms: float) -> list[str]:
    """From arrival at the service to sending, which the peers' own slowness does not lengthen."""
    worst_ms = max(delays_ms)
    return [f"p95 of the delay was {worst_ms:.0f} ms"] if worst_ms > bound_ms else []


def growth(samples: list[Sample], idle: Sample, last: Sample) -> list[str]:
    """Level: the last third holds no more than the first half, and nothing stays when all left."""
    earlier, later = samples[: len(samples) // 2 + 1], samples[-(len(samples) // 3 + 1) :]
    found = []
    for name, spare in (("descriptors", SPARE_DESCRIPTORS), ("threads", SPARE_THREADS)):
        most = max(getattr(s, name) for s in earlier)
        least = min(getattr(s, name) for s in later)
        if least > most + spare:
            found.append(f"{name} grow: at most {most}, later at least {least}")
    if last.descriptors > idle.descriptors + SPARE_DESCRIPTORS:
        found.append(f"descriptors: {idle.descriptors} before, {last.descriptors} after all left")
    middle = earlier[len(earlier) // 2 :]
    was_mb, is_mb = (mean(s.rss_mb for s in part) for part in (middle, later))
    short = last.at_s - idle.at_s < SHORT_S
    if is_mb > (SPARE_MEMORY_SHORT if short else SPARE_MEMORY) * was_mb + SPARE_MEMORY_MB:
        found.append(f"memory grows: {was_mb:.0f} MB, later {is_mb:.0f} MB")
    return found


def _row(
    arguments: argparse.Namespace, samples: list[Sample], seen: dict[str, Any], dropped: int
) -> str:
    first, last = samples[0], samples[-1]
    cores = (last.cpu_s - first.cpu_s) / max(0.1, last.at_s - first.at_s)
    latency = seen["latency_ms"] or {"p50": None, "p95": None}
    name = arguments.backend + (f" + {arguments.stabilise}" if arguments.stabilise else "")
    return (
        "| backend | viewers | minutes | fps | gap max ms | latency p50 / p95 ms | first frame ms "
        "| lost | repeated | dropped | service cores | RSS MB |\n|" + "---|" * 12 + "\n"
        f"| {name} | {arguments.viewers} | {arguments.minutes:g} | {seen['fps']} "
        f"| {seen['gap_ms']['max']} | {latency['p50']} / {latency['p95']} "
        f"| {seen['first_frame_ms']} | {seen['lost']} | {seen['repeated']} | {dropped} "
        f"| {cores:.2f} | {first.rss_mb:.0f} -> {last.rss_mb:.0f} |"
    )


def _peer(role: str, url: str, *options: str) -> list[str]:
    return bound(sys.executable, "-m", "scripts.soak_peers", role, url, *options)


def _dropped(frames: dict[str, Any]) -> int:
    return int(sum(frames["dropped"].values()))


def _some(samples: list[Sample], value: Callable[[Sample], int]) -> str:
    return " ".join(str(value(s)) for s in samples[:: max(1, len(samples) // 12)])


def _try_for(check: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not check() and time.monotonic() < deadline:
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
