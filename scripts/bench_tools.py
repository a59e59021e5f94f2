"""What the page's comparison tools cost: processor time of all of Chromium, tool by tool."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from scripts.bench_browser import FLAGS
from scripts.children import processor, service, stop, streamlift

STREAM = "demo"

TOOLS = {
    "side by side": "streamlift.stage.show('side')",
    "before / after": "streamlift.stage.show('compare')",
    "blink": "streamlift.tools.show('blink')",
    "difference": "streamlift.tools.show('difference')",
    "loupe": "streamlift.stage.show('compare'), streamlift.tools.toggleLoupe()",
    "replay": "streamlift.tools.toggleLoupe(), streamlift.tools.toggleReplay()",
    "clip": "streamlift.tools.toggleReplay(), streamlift.tools.toggleClip()",
    "before / after again": "streamlift.tools.toggleClip()",
}
"""What is done before each is measured; so each ends what the one before it began."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each tool")
    parser.add_argument("--backend", default="bicubic")
    parser.add_argument("--port", type=int, default=8193)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "tools.yaml"
        settings = {"server": {"port": arguments.port}, "default_backend": arguments.backend}
        config.write_text(json.dumps(settings), encoding="utf-8")
        whip = f"http://127.0.0.1:{arguments.port}/whip/{STREAM}"
        with service(config, arguments.port), sync_playwright() as playwright:
            publisher = subprocess.Popen(streamlift("publish", "--demo", whip))
            try:
                browser = playwright.chromium.launch(
                    executable_path=arguments.chromium, args=list(FLAGS)
                )
                measure(browser, arguments)
                browser.close()
            finally:
                stop(publisher)
    return 0


def measure(browser: Browser, arguments: argparse.Namespace) -> None:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(f"http://127.0.0.1:{arguments.port}/?stream={STREAM}&view=compare")
    while not page.evaluate("() => streamlift.stage.slider.pictures()?.locked === true"):
        time.sleep(0.1)
    time.sleep(3)  # what the browser does at its start is over
    print(f"cpu: {processor()}")
    print("| tool | cores of Chromium | pairs a second |\n|---|---|---|")
    for tool, begin in TOOLS.items():
        page.evaluate(f"() => {{ {begin}; }}")
        time.sleep(1)
        before, drawn, began_s = cpu_s(browser), draws(page), time.monotonic()
        time.sleep(arguments.seconds)
        passed_s = time.monotonic() - began_s
        cores, rate = (cpu_s(browser) - before) / passed_s, (draws(page) - drawn) / passed_s
        print(f"| {tool} | {cores:.2f} | {rate:.1f} |", flush=True)


def cpu_s(browser: Browser) -> float:
    """Seconds of processor time that the browser's processes have taken so far."""
    session = browser.new_browser_cdp_session()
    found: list[dict[str, Any]] = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return float(sum(process["cpuTime"] for process in found))


def draws(page: Page) -> int:
    drawn: int = page.evaluate("() => streamlift.sync.draws")
    return drawn


if __name__ == "__main__":
    sys.exit(main())
