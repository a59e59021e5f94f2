"""What a Chromium viewer gets: first picture, shown latency, keyframes and freezes.

Shown latency is from drawing the stamp at the publisher to the frame callback of the video element
(requestVideoFrameCallback), which comes when the frame is handed to the compositor. The browser's
clock is tied to the machine's monotonic one by the quickest of forty question-and-answer rounds.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from scripts.children import processor, read, service, streamlift, wait_for

STREAM = "shown"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
)
WATCH = """
async ([stream, seconds]) => {
  const { WhepSession } = await import("/static/whep.js");
  const { StampReader } = await import("/static/stamp.js");
  let best = Infinity, offset = 0;
  for (let round = 0; round < 40; round += 1) {
    const asked = performance.now();
    const there = await monotonicMs();
    const answered = performance.now();
    if (answered - asked < best) {
      best = answered - asked;
      offset = there - (asked + answered) / 2;
    }
  }
  const video = document.createElement("video");
  video.muted = true;
  video.autoplay = true;
  document.body.prepend(video);
  const reader = new StampReader();
  const latencies = [], posted = performance.now();
  let first = null;
  const shown = (now) => {
    first ??= performance.now() - posted;
    const stamp = reader.read(video, video.videoWidth, video.videoWidth / 512);
    if (stamp) latencies.push((((now + offset - stamp.ms) % 65536) + 65536) % 65536);
    video.requestVideoFrameCallback(shown);
  };
  video.requestVideoFrameCallback(shown);
  const session = await WhepSession.open(`/whep/${stream}`);
  video.srcObject = session.stream;
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  let inbound = {};
  for (const report of (await session.peer.getStats()).values()) {
    if (report.type === "inbound-rtp" && report.kind === "video") inbound = report;
  }
  await session.close();
  return {
    latencies, first, clock_error_ms: best / 2, size: [video.videoWidth, video.videoHeight],
    freezes: inbound.freezeCount, keyframes: inbound.keyFramesDecoded,
    decoded: inbound.framesDecoded, dropped: inbound.framesDropped,
  };
}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--backend", default="bicubic")
    parser.add_argument("--port", type=int, default=8192)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "shown.yaml"
        config.write_text(
            json.dumps({"server": {"port": arguments.port}, "default_backend": arguments.backend}),
            encoding="utf-8",
        )
        with service(config, arguments.port):
            return report(watch(arguments))


def watch(arguments: argparse.Namespace) -> dict[str, Any]:
    base = f"http://127.0.0.1:{arguments.port}"
    command = streamlift("publish", "--demo", "--stamp", f"{base}/whip/{STREAM}")
    publisher = subprocess.Popen(command)
    try:
        wait_for(lambda: read(f"{base}/api/v1/streams/{STREAM}")["state"] == "live", 40)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=arguments.chromium, args=list(FLAGS)
            )
            page = browser.new_page()
            page.expose_function("monotonicMs", lambda: time.monotonic() * 1000)
            page.goto(f"{base}/docs")
            page.wait_for_selector(".call")
            time.sleep(2)  # what the browser does at its start is over
            seen: dict[str, Any] = page.evaluate(WATCH, [STREAM, arguments.seconds])
            browser.close()
            return seen
    finally:
        publisher.send_signal(signal.SIGTERM)
        publisher.wait(20)


def report(seen: dict[str, Any]) -> int:
    latencies = sorted(seen["latencies"])
    print(f"cpu: {processor()}; clock error at most {seen['clock_error_ms']:.1f} ms")
    if not latencies:
        print("no stamped frame was shown")
        return 1
    middle, late = latencies[len(latencies) // 2], latencies[int(0.95 * len(latencies))]
    width, height = seen["size"]
    print(
        "| size | first picture ms | shown latency p50 / p95 ms | keyframes | freezes | decoded |"
    )
    print("|" + "---|" * 6)
    print(
        f"| {width}x{height} | {seen['first']:.0f} | {middle:.1f} / {late:.1f} "
        f"| {seen['keyframes']} | {seen['freezes']} | {seen['decoded']} |"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
