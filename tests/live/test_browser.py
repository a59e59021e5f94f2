"""Chromium shows the page of the real service with moving, upscaled video."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.commands import address, running

pytestmark = [pytest.mark.browser, pytest.mark.timeout(150)]

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
FLAGS = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
WAIT_MS = 60_000

# The time shown by a video of the upscaled size, or null while there is none.
UPSCALED_TIME = """
() => {
    const videos = [...document.querySelectorAll("video")].filter((v) => v.videoWidth === 1024);
    return videos.length ? Math.max(...videos.map((v) => v.currentTime)) : null;
}
"""


async def test_the_page_shows_the_demo_upscaled_and_moving() -> None:
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    chromium = os.environ.get("STREAMLIFT_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium: install the package chromium or set STREAMLIFT_CHROMIUM")
    arguments = ("--port", "0", "--demo", "--backend", "bicubic")
    async with running("serve", *arguments) as serve, playwright.async_playwright() as driver:
        url = await address(serve)
        browser = await driver.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            page = await browser.new_page(viewport={"width": 1440, "height": 900})
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            await page.goto(url)
            await page.wait_for_function(UPSCALED_TIME, timeout=WAIT_MS)
            first = await page.evaluate(UPSCALED_TIME)
            moved = f"(first) => ({UPSCALED_TIME})() > first + 1"
            await page.wait_for_function(moved, arg=first, timeout=WAIT_MS)
            ARTIFACTS.mkdir(exist_ok=True)
            await page.screenshot(path=str(ARTIFACTS / "page.png"))
        finally:
            await browser.close()
    assert errors == []
