"""A fake service in a process of its own, and a Chromium that looks at the page it serves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from scripts.children import bound

HERE = Path(__file__).parent
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    # A name that is not loopback, for what browsers do on insecure pages.
    "--host-resolver-rules=MAP elsewhere.test 127.0.0.1",
)
# Errors that a test provokes on purpose are shown by Chromium as failed loads.
EXPECTED_ON_CONSOLE = "Failed to load resource"


@dataclass(frozen=True)
class Service:
    """The fake service, and how to change its behaviour."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def behave(self, **changes: object) -> dict[str, Any]:
        """Change the behaviour; returns the request log and the number of sessions."""
        request = urllib.request.Request(
            f"{self.url}fake",
            json.dumps(changes).encode(),
            {"Content-Type": "application/json"},
            method="PUT",
        )
        with urllib.request.urlopen(request) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def log(self) -> list[str]:
        lines: list[str] = self.behave()["log"]
        return lines


@pytest.fixture(scope="session")
def running_service() -> Iterator[Service]:
    pytest.importorskip("aiortc", reason="the fake service needs aiortc")
    paths = [str(HERE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(
        bound(sys.executable, str(HERE / "fake_service.py")),
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        assert process.stdout is not None
        # It listens already; requests wait until it has coded its scene.
        service = Service(int(process.stdout.readline()))
        try:
            yield service
        finally:
            process.terminate()


@pytest.fixture
def service(running_service: Service) -> Service:
    running_service.behave(reset=True, hang_up=True)
    return running_service


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = os.environ.get("STREAMLIFT_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("no Chromium: install the package chromium or set STREAMLIFT_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser, service: Service) -> Iterator[BrowserContext]:
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    context.grant_permissions(["camera", "microphone"], origin=service.url.rstrip("/"))
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that may not throw, nor print to the console, nor break its security policy."""
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            None if EXPECTED_ON_CONSOLE in message.text else complaints.append(message.text)
        ),
    )
    yield page
    page.close()
    assert complaints == []
