"""The page in a real Chromium against the real service and its demo."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page
from scripts.children import bound
from tests.machine import in_time_sync

pytestmark = [pytest.mark.browser, pytest.mark.peer]

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "artifacts"
PLAYING = """() => ["video-source", "video-upscaled"].every(
    (id) => document.getElementById(id).videoWidth > 0)"""

WATCH_GAPS = """() => {
  window.gaps = [];
  const { video } = streamlift.upscaled;
  let before = null;
  const note = (now) => {
    if (before !== null) gaps.push(now - before);
    before = now;
    video.requestVideoFrameCallback(note);
  };
  video.requestVideoFrameCallback(note);
}"""
"""Collects the milliseconds between the frames that are shown."""


@pytest.fixture(scope="module")
def demo_url() -> Iterator[str]:
    """`streamlift serve --demo` on a free port."""
    with _serving("--demo") as (url, process):
        _wait_for_demo(url, process)
        yield url


@pytest.fixture
def stamped_url() -> Iterator[str]:
    """The service with a publisher that stamps its pictures, which the demo's own does not."""
    with _stamped() as url:
        yield url


@pytest.fixture
def small_url() -> Iterator[str]:
    """The same with few and small pictures, of which a small machine can enlarge each twice."""
    with _stamped("--size", "256x256", "--fps", "10") as url:
        yield url


@contextmanager
def _stamped(*options: str) -> Iterator[str]:
    publish = bound(sys.executable, "-m", "streamlift.cli", "publish", "--demo", "--stamp")
    with _serving() as (url, process):
        command = [*publish, *options, "--wait", f"{url}whip/demo"]
        with subprocess.Popen(command, env=_environment()) as publisher:
            try:
                _wait_for_demo(url, process)
                yield url
            finally:
                publisher.terminate()


@contextmanager
def _serving(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = bound(sys.executable, "-m", "streamlift.cli", "serve", *options, "--port", "0")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=_environment(), stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            assert found, "the service did not say where it listens"
            yield f"{found[0]}/", process
        finally:
            process.terminate()


def test_both_halves_show_the_same_frame(page: Page, stamped_url: str) -> None:
    page.goto(stamped_url)
    wait_until(page, PLAYING)
    page.click("#view-compare")
    wait_until(page, "() => document.getElementById('lock').textContent === 'Same frame'")
    page.evaluate("() => { streamlift.sync.readStamps = true; }")
    in_time_sync(lambda: differing(page))
    page.screenshot(path=ARTIFACTS / "console-compare.png")


def test_two_backends_of_one_stream_are_compared_frame_by_frame(page: Page, small_url: str) -> None:
    page.goto(small_url)
    wait_until(page, PLAYING)
    wait_until(page, "() => streamlift.stage.inStep.kept")
    shown = page.evaluate("() => document.getElementById('n-backend').textContent")
    other = "compact" if shown == "bicubic" else "bicubic"
    ready = f"#other option[value={other}]:not(:disabled)"
    page.wait_for_selector(ready, state="attached", timeout=60_000)
    page.click("#view-compare")
    page.select_option("#other", other)
    wait_until(page, "() => streamlift.choice.lane?.state === 'live'")
    wait_until(page, "() => document.getElementById('lock').textContent === 'Same frame'")
    page.evaluate("() => { streamlift.sync.readStamps = true; }")
    in_time_sync(lambda: differing(page))
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / "console-ab.png")
    page.click("#view-side")
    wait_until(page, "() => streamlift.stage.inStep.kept")
    page.screenshot(path=ARTIFACTS / "console-ab-side.png")
    page.select_option("#other", "")
    wait_until(page, "() => !streamlift.choice.lane")


def test_the_demo_plays_side_by_side(page: Page, demo_url: str) -> None:
    page.goto(demo_url)
    wait_until(page, PLAYING)
    sizes = page.evaluate(
        """() => ["video-source", "video-upscaled"].map(
            (id) => document.getElementById(id).videoWidth)"""
    )
    assert sizes == [512, 1024]
    wait_until(page, "() => Number(document.getElementById('n-fps').textContent) > 5")
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / "console.png")


def test_the_tools_work_on_the_demo(page: Page, demo_url: str) -> None:
    page.goto(f"{demo_url}?stream=demo&view=difference&zoom=2")
    wait_until(page, PLAYING)
    wait_until(page, "() => streamlift.stage.slider.pictures()?.locked === true")
    assert page.inner_text("#badge") == "|A − B| × 8"
    page.keyboard.press("l")
    page.keyboard.press("r")
    wait_until(page, "() => streamlift.tools.replay.length >= 10")
    page.keyboard.press(",")
    page.keyboard.press(",")
    assert page.evaluate("() => streamlift.stage.slider.locked")
    assert re.fullmatch(r"([+−]?\d+ ?){3}", page.inner_text("#loupe-change"))
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / "console-difference.png")
    with page.expect_download() as started:
        page.keyboard.press("p")
    assert started.value.suggested_filename.startswith("demo-compare-")


def test_clicking_through_every_ready_backend_never_interrupts_the_picture(
    page: Page, demo_url: str
) -> None:
    def run() -> list[str]:
        page.goto(demo_url)
        wait_until(page, PLAYING)
        page.evaluate(WATCH_GAPS)
        wait_until(page, "() => gaps.length >= 50")
        usual_ms = max(page.evaluate("() => gaps.splice(0)"))
        session = page.evaluate("() => streamlift.upscaled.session.id")
        page.wait_for_selector("#backend-list button:not(:disabled)")
        names = page.locator("#backend-list button:not(:disabled) strong").all_inner_texts()
        late = []
        for name in (*names, names[0]):
            hangs = _hangs(demo_url)
            page.click(f"#backend-list button:has(strong:text-is('{name}'))")
            shown = f"() => document.getElementById('n-backend').textContent === '{name}'"
            try:
                wait_until(page, shown)
            except pytest.fail.Exception:
                # A lane without processor time is taken for hung, and then another is shown.
                if _hangs(demo_url) == hangs:
                    raise
                return [f"{name} did not answer in time"]
            wait_until(page, "() => gaps.length >= 25")
            # A busy machine drops frames all the time; a switch may not be worse than that.
            longest_ms = max(page.evaluate("() => gaps.splice(0)"))
            if longest_ms > max(1000, 3 * usual_ms):
                late.append(f"a gap of {longest_ms:.0f} ms to {name}, {usual_ms:.0f} ms is usual")
        assert page.evaluate("() => streamlift.upscaled.session.id") == session
        return late

    in_time_sync(run)
    assert "Switched" in page.inner_text("#event-list")


def test_a_camera_published_on_the_page_comes_back_upscaled(page: Page, demo_url: str) -> None:
    page.context.grant_permissions(["camera"], origin=demo_url.rstrip("/"))
    page.goto(demo_url)
    # The demo leaves its place on the default backend, which may have only one.
    page.click("#backend-list button:has(strong:text-is('bicubic')):not(:disabled)")
    wait_until(page, "() => document.getElementById('n-backend').textContent === 'bicubic'")
    page.fill("#publish-name", "mine")
    page.click("#publish-start")
    wait_until(page, "() => streamlift.publisher.phase === 'live'")
    wait_until(page, "() => document.getElementById('stream').value === 'mine'")
    wait_until(page, PLAYING)
    page.click("#publish-stop")
    wait_until(page, "() => streamlift.publisher.phase === 'idle'")


def _environment() -> dict[str, str]:
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _hangs(url: str) -> float:
    """How often the service took a lane for hung."""
    with urllib.request.urlopen(f"{url}metrics") as response:
        lines = response.read().decode().splitlines()
    faults = (line for line in lines if line.startswith("streamlift_backend_faults_total{"))
    return sum(float(line.split()[-1]) for line in faults if 'kind="hang"' in line)


def differing(page: Page) -> list[str]:
    """What to say of the next 75 draws that can be read, if over a twentieth are of two frames.

    A few are where Chromium had no time: it hands over a frame after the one it told of.
    """
    page.evaluate("() => { streamlift.sync.same = streamlift.sync.different = 0; }")
    wait_until(page, "() => streamlift.sync.same + streamlift.sync.different >= 75")
    sync = page.evaluate("() => streamlift.sync")
    share = sync["same"] / (sync["same"] + sync["different"])
    return [] if share >= 0.95 else [f"only {share:.0%} of the draws show one frame"]


def wait_until(page: Page, condition: str, timeout_s: float = 45) -> None:
    """Wait for a JavaScript condition; Playwright's own way needs eval, which the page forbids."""
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(condition):
        if time.monotonic() > deadline:
            said = page.inner_text("#status-text"), page.inner_text("#publish-message")
            pytest.fail(f"waited {timeout_s} s in vain for {condition}; the page says {said}")
        page.wait_for_timeout(50)


def _wait_for_demo(url: str, process: subprocess.Popen[str], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process.poll() is None, "the service ended before it was ready"
        if _is_live(f"{url}api/v1/streams/demo"):
            return
        time.sleep(0.1)
    pytest.fail(f"the demo was not live after {timeout_s} s")


def _is_live(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as response:
            return b'"state":"live"' in response.read()
    except urllib.error.URLError:
        return False  # not listening yet, or nothing published yet
