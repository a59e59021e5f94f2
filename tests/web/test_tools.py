"""The comparison tools of the page, its links and its bare view, against the fake service."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page
from tests.web.test_page import PLAYING, text_has, wait_until

pytestmark = pytest.mark.browser

PAIRED = "() => streamlift.stage.slider.pictures()?.locked === true"

SHOWN = """() => {
  const { canvas } = streamlift.stage.slider;
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return [...data.filter((_, at) => at % 64 === 0)];
}"""
"""Red of every sixteenth pixel of the comparison as it is drawn."""

VALUES = """([side, x, y]) => {
  const pictures = streamlift.stage.slider.pictures();
  const [width, height] = side === "source" ? pictures.lowSize : pictures.highSize;
  const context = Object.assign(document.createElement("canvas"), { width, height })
    .getContext("2d", { willReadFrequently: true });
  context.drawImage(pictures[side], 0, 0);
  return [...context.getImageData(x, y, 1, 1).data.slice(0, 3)];
}"""
"""A pixel of one of both pictures, read from the whole of it."""


def pairs(page: Page, url: str) -> None:
    """Open the page, and hold a pair of one frame before / after."""
    page.goto(url)
    wait_until(page, PLAYING)
    page.keyboard.press("c")
    wait_until(page, PAIRED)


def held(page: Page, url: str) -> None:
    pairs(page, url)
    page.keyboard.press(" ")
    assert page.evaluate(PAIRED)


def test_blinking_swaps_the_pictures_in_one_place_by_one_key(page: Page, service: Any) -> None:
    held(page, service.url)
    page.keyboard.press("b")
    assert page.inner_text("#badge") == "B · bicubic"
    upscaled = page.evaluate(SHOWN)
    page.keyboard.press("b")
    assert page.inner_text("#badge") == "A · Source"
    source = page.evaluate(SHOWN)
    page.keyboard.press("b")
    assert page.evaluate(SHOWN) == upscaled
    assert source != upscaled
    # Both are the same scene in the same place: far nearer to each other than to their mirror.
    far = np.abs(np.subtract(source, upscaled[::-1])).mean()
    assert np.abs(np.subtract(source, upscaled)).mean() < 0.25 * far
    page.keyboard.press("c")
    assert not page.is_visible("#badge")
    assert page.get_attribute("#view-compare", "aria-pressed") == "true"
    assert page.get_attribute("#view-blink", "aria-pressed") == "false"


def test_the_difference_says_its_factor_and_doubles_with_it(page: Page, service: Any) -> None:
    held(page, service.url)
    page.keyboard.press("d")
    assert page.inner_text("#badge") == "|A − B| × 8"
    for _ in range(3):
        page.keyboard.press("Shift+G")
    assert page.inner_text("#badge") == "|A − B| × 1"
    once = np.array(page.evaluate(SHOWN))
    page.keyboard.press("g")
    page.keyboard.press("g")
    assert page.inner_text("#badge") == "|A − B| × 4"
    assert page.inner_text("#factor") == "× 4"
    assert np.array_equal(page.evaluate(SHOWN), np.minimum(255, 4 * once))
    assert 0 < once.mean() < 40


def test_a_difference_is_absolute_and_amplified_up_to_white(page: Page, service: Any) -> None:
    page.goto(service.url)
    found = page.evaluate(
        """async () => {
        const m = await import('/static/difference.js');
        const { offPage } = await import('/static/drawing.js');
        const plain = (colour) => {
          const context = offPage(8, 8);
          context.fillStyle = colour;
          context.fillRect(0, 0, 8, 8);
          return context.canvas;
        };
        const a = plain("rgb(100 50 0)");
        const b = plain("rgb(90 55 200)");
        const context = offPage(20, 10, { alpha: false, willReadFrequently: true });
        const view = { left: 10, top: 0, width: 10, height: 10 };
        const shown = [];
        for (const factor of m.FACTORS) {
          for (const [first, second] of [[a, b], [b, a]]) {
            m.drawDifference(context, first, second, view, { scale: 2, x: 0.5, y: 0.5 }, factor);
            shown.push([...context.getImageData(15, 5, 1, 1).data]);
          }
        }
        return { factors: m.FACTORS, shown, beside: [...context.getImageData(5, 5, 1, 1).data] };
        }""",
    )
    expected = [[min(255, level * f) for level in (10, 5, 200)] + [255] for f in found["factors"]]
    assert found["shown"] == [colour for colour in expected for _ in range(2)]
    assert found["beside"] == [0, 0, 0, 255]


def test_what_is_not_one_frame_is_not_shown_as_a_difference(page: Page, service: Any) -> None:
    service.behave(missing=["/api/v1/sessions"])
    page.goto(service.url)
    wait_until(page, PLAYING)
    page.click("#view-difference")
    wait_until(page, "() => streamlift.stage.slider.pictures() !== null")
    wait_until(page, text_has("#badge", "Not the same frame: no difference is shown"))
    assert max(page.evaluate(SHOWN)) == 0


def test_the_loupe_tells_the_values_of_both_pictures_at_the_pointer(
    page: Page, service: Any
) -> None:
    held(page, service.url)
    page.keyboard.press("l")
    box = page.locator("#compare-canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.6 * box["height"])
    place = page.inner_text("#loupe-place")
    found = re.fullmatch(r"x (\d+), y (\d+)", place)
    assert found, place
    x, y = int(found[1]), int(found[2])
    assert abs(x - 0.3 * 512) <= 1
    assert abs(y - 0.6 * 512) <= 1
    for side, at in (("source", (x // 2, y // 2)), ("upscaled", (x, y))):
        values = page.evaluate(VALUES, [side, *at])
        assert page.inner_text(f"#loupe-{side}-rgb") == " ".join(map(str, values))
    # Screen readers are told where it stands still.
    wait_until(page, text_has("#loupe-told", f"x {x}, y {y}. Red, green, blue: Source "))


def test_keys_move_the_loupe_by_one_pixel(page: Page, service: Any) -> None:
    held(page, service.url)
    page.click("#loupe-toggle")
    assert page.inner_text("#loupe-place") == "x 256, y 256"
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    assert page.inner_text("#loupe-place") == "x 255, y 258"
    assert page.get_attribute("#line", "aria-valuenow") == "50"
    page.keyboard.press("l")
    assert not page.is_visible("#loupe")


def test_replay_is_stepped_by_keys_in_pairs_of_one_frame(page: Page, service: Any) -> None:
    pairs(page, service.url)
    page.keyboard.press("r")
    wait_until(page, "() => streamlift.tools.replay.length >= 20")
    page.keyboard.press(" ")
    numbers = []
    for _ in range(10):
        page.keyboard.press(",")
        numbers.append(page.evaluate("() => streamlift.stage.slider.stamps()"))
    page.keyboard.press(".")
    back = page.evaluate("() => streamlift.stage.slider.stamps()")
    assert all(number["source"] == number["upscaled"] for number in numbers)
    shown = [number["source"] for number in numbers]
    # The fake service's frames come again after a hundred.
    steps = [(a - b) % 100 for a, b in itertools.pairwise(shown)]
    assert all(1 <= step <= 12 for step in steps), shown
    assert back == numbers[-2]
    assert re.fullmatch(r"\d+ of \d+ · −\d\.\d\d s", page.inner_text("#replay-place"))
    told = page.get_attribute("#replay-range", "aria-valuetext")
    assert told is not None
    assert re.fullmatch(r"picture \d+ of \d+, \d\.\d\d seconds ago", told)
    page.click("#replay-live")
    draws = page.evaluate("() => streamlift.sync.draws")
    wait_until(page, f"() => streamlift.sync.draws > {draws} + 5")


def test_replay_plays_what_it_kept_and_stops_at_the_end(page: Page, service: Any) -> None:
    pairs(page, service.url)
    page.keyboard.press("r")
    wait_until(page, "() => streamlift.tools.replay.length >= 20")
    page.click("#replay-play")
    wait_until(page, "() => streamlift.tools.replay.index !== null")
    last = page.evaluate("() => streamlift.tools.replay.length") - 1
    wait_until(page, f"() => streamlift.tools.replay.index === {last}")
    wait_until(page, "() => !streamlift.tools.replay.playing")
    assert page.inner_text("#replay-play") == "Play"


def test_replay_keeps_seconds_and_gives_its_memory_back(page: Page, service: Any) -> None:
    pairs(page, service.url)
    assert page.evaluate("() => streamlift.tools.replay.length") == 0
    page.click("#replay-toggle")
    wait_until(page, "() => streamlift.tools.replay.length >= 30")
    size, count = page.evaluate(
        "() => [streamlift.tools.replay.bytes, streamlift.tools.replay.length]"
    )
    assert size / count == pytest.approx(1.5 * (256**2 + 512**2), rel=0.05)
    page.click("#replay-toggle")
    assert page.evaluate("() => streamlift.tools.replay.bytes") == 0
    assert not page.is_visible("#replay")


def test_tools_that_are_off_keep_and_draw_nothing(page: Page, service: Any) -> None:
    pairs(page, service.url)
    wait_until(page, "() => streamlift.sync.draws > 10")
    assert page.evaluate(
        """() => ({ painter: streamlift.stage.slider.painter, kept: streamlift.tools.replay.length,
                    loupe: document.getElementById("loupe-place").textContent })"""
    ) == {"painter": None, "kept": 0, "loupe": ""}


def test_a_comparison_is_saved_with_its_names(page: Page, service: Any, tmp_path: Path) -> None:
    held(page, service.url)
    with page.expect_download() as started:
        page.keyboard.press("p")
    name = started.value.suggested_filename
    assert re.fullmatch(r"demo-compare-\d{8}-\d{6}\.png", name)
    started.value.save_as(tmp_path / name)
    picture = cv2.imread(str(tmp_path / name))
    assert picture is not None
    assert picture.shape == (40 + 512 + 36, 8 + 2 * (512 + 8), 3)
    assert picture[:40].max() > 128, "a title is written"
    left, right = picture[40:552, 8:520].astype(int), picture[40:552, 528:1040].astype(int)
    assert 0 < np.abs(left - right).mean() < 20
    wait_until(page, text_has("#said", "Comparison saved, 1048 × 588"))
    wait_until(page, text_has("#n-backend", "bicubic"))
    names = page.evaluate("() => streamlift.tools.words().names")
    assert names == {"source": "Source", "upscaled": "bicubic"}


def test_a_difference_is_saved_beside_the_pictures(
    page: Page, service: Any, tmp_path: Path
) -> None:
    pairs(page, service.url)
    page.keyboard.press("d")
    wait_until(page, PAIRED)
    with page.expect_download() as started:
        page.click("#picture")
    started.value.save_as(tmp_path / "three.png")
    picture = cv2.imread(str(tmp_path / "three.png"))
    assert picture is not None
    assert picture.shape[1] == 8 + 3 * (512 + 8)


def test_a_clip_is_saved_and_plays(page: Page, service: Any, tmp_path: Path) -> None:
    pairs(page, service.url)
    page.click("#clip")
    assert page.get_attribute("#clip", "aria-pressed") == "true"
    draws = page.evaluate("() => streamlift.sync.draws")
    wait_until(page, f"() => streamlift.sync.draws > {draws} + 40")
    with page.expect_download() as started:
        page.click("#clip")
    name = started.value.suggested_filename
    assert re.fullmatch(r"demo-compare-\d{8}-\d{6}\.(mp4|webm|mkv)", name)
    started.value.save_as(tmp_path / name)
    with av.open(str(tmp_path / name)) as container:
        frames = [(frame.width, frame.height) for frame in container.decode(video=0)]
    assert len(frames) > 15
    assert set(frames) == {(8 + 2 * (512 + 8), 40 + 512 + 36)}
    wait_until(page, text_has("#said", "Clip saved"))
    assert page.inner_text("#clip") == "Clip"


def test_a_browser_without_a_recorder_is_told_so(page: Page, service: Any) -> None:
    page.add_init_script("delete window.MediaRecorder;")
    pairs(page, service.url)
    page.click("#clip")
    wait_until(page, text_has("#said", "it has no MediaRecorder"))
    with page.expect_download():
        page.click("#picture")


def test_a_link_restores_stream_view_and_zoom_and_holds_no_token(
    page: Page, service: Any, chromium: Browser
) -> None:
    service.behave(token="secret-token")
    page.context.grant_permissions(
        ["clipboard-read", "clipboard-write"], origin=service.url.rstrip("/")
    )
    pairs(page, f"{service.url}?stream=demo&token=of-another#view=secret-token")
    page.keyboard.press("d")
    page.keyboard.press("g")
    page.keyboard.press("+")
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("k")
    wait_until(page, text_has("#said", "no token is in it"))
    link = page.evaluate("() => navigator.clipboard.readText()")
    assert link == (f"{service.url}?stream=demo&view=difference&zoom=4&at=0.525_0.5&factor=16")
    wait_until(page, f"() => location.href === '{link}'")
    service.behave(token=None)
    context = chromium.new_context()
    other = context.new_page()
    try:
        other.goto(link)
        wait_until(other, PLAYING)
        wait_until(other, text_has("#badge", "× 16"))
        assert other.inner_text("#zoom-reset") == "4×"
        assert other.evaluate("() => streamlift.tools.view") == "difference"
        assert other.evaluate("() => streamlift.stage.zoom.x") == pytest.approx(0.525)
    finally:
        context.close()


def test_without_a_clipboard_the_link_is_shown(page: Page, service: Any) -> None:
    page.goto(f"{service.url.replace('127.0.0.1', 'elsewhere.test')}?stream=demo&view=blink")
    page.click("#share")
    assert page.is_visible("#link")
    assert page.input_value("#link-address").endswith("/?stream=demo&view=blink")


def test_the_bare_view_is_the_picture_alone(page: Page, service: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{service.url}?stream=demo&view=clean")
    wait_until_plain(page, "() => document.querySelector('video')?.videoWidth === 512")
    facts = page.evaluate(
        """() => {
          const video = document.querySelector("video");
          const seen = [...document.body.querySelectorAll("*")].filter((e) => e.checkVisibility());
          return {
            seen: seen.map((element) => element.localName), muted: video.muted,
            paused: video.paused, width: video.clientWidth, height: video.clientHeight,
            colours: [document.documentElement, document.body, video].map(
              (element) => getComputedStyle(element).backgroundColor),
          };
        }"""
    )
    assert facts == {
        "seen": ["video"],
        "muted": True,
        "paused": False,
        "width": 1440,
        "height": 900,
        "colours": ["rgba(0, 0, 0, 0)"] * 3,
    }
    assert [url for url in asked if "/whep/" in url] == [f"{service.url}whep/demo"]
    assert not [url for url in asked if "/api/" in url]
    # With nothing behind it nothing is painted either: what OBS shows below shines through.
    shot = np.frombuffer(page.screenshot(omit_background=True), np.uint8)
    picture = cv2.imdecode(shot, cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert picture[5, 5, 3] == 0


def test_the_bare_view_takes_a_token_from_the_address_and_says_when_it_needs_one(
    page: Page, service: Any
) -> None:
    service.behave(token="secret-token")
    page.goto(f"{service.url}?stream=demo&view=clean")
    wait_until_plain(page, "() => document.body.innerText.includes('#view=TOKEN')")
    with page.expect_event("load"):
        page.evaluate("() => { location.hash = 'view=secret-token'; }")
    wait_until_plain(page, "() => document.querySelector('video')?.videoWidth === 512")
    assert page.inner_text("body") == ""
    assert "secret-token" not in page.url


def test_every_key_is_in_the_help(page: Page, service: Any) -> None:
    page.goto(service.url)
    page.keyboard.press("?")
    listed = set(page.locator("#help kbd").all_inner_texts())
    assert listed >= {*"SCBDGLRPVK,.F?0", "Space", "←", "→"}
    page.keyboard.press("b")
    page.keyboard.press("Escape")
    assert page.evaluate("() => streamlift.tools.view") == "side", "a dialog takes no keys of ours"


def test_every_control_has_a_name_and_can_be_reached(page: Page, service: Any) -> None:
    pairs(page, service.url)
    page.keyboard.press("d")
    page.keyboard.press("r")
    wait_until(page, "() => streamlift.tools.replay.length > 3")
    page.click("#replay-back")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll(".theatre button, .theatre input")]
          .filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.length))
          .map((e) => e.id)"""
    )
    assert unnamed == []
    page.focus("#view-difference")
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id"))
    assert reached >= {"factor-less", "factor-more", "loupe-toggle", "replay-toggle", "picture"}
    assert reached >= {"clip", "share", "replay-back", "replay-range", "replay-on", "replay-live"}


def test_a_phone_gets_targets_for_fingers_and_no_sideways_scroll(
    chromium: Browser, service: Any
) -> None:
    size = {"width": 390, "height": 844}
    context = chromium.new_context(
        viewport=size,  # type: ignore[arg-type]
        has_touch=True,
        is_mobile=True,
        device_scale_factor=2,
        reduced_motion="reduce",
    )
    page = context.new_page()
    try:
        pairs(page, service.url)
        page.click("#view-difference")
        page.click("#replay-toggle")
        page.click("#loupe-toggle")
        small = page.evaluate(
            """() => [...document.querySelectorAll(".theatre button, .theatre input")]
              .filter((element) => element.checkVisibility())
              .map((element) => [element.id, element.getBoundingClientRect()])
              .filter(([, { width, height }]) => width < 44 || height < 44)
              .map(([id, { width, height }]) => `${id} ${width} x ${height}`)"""
        )
        assert small == []
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        moving = page.evaluate(
            """() => [...document.querySelectorAll("*")].filter((element) => {
              const { transitionDuration, animationName } = getComputedStyle(element);
              return transitionDuration !== "0s" || animationName !== "none";
            }).length"""
        )
        assert moving == 0
        # A finger moves the loupe, and neither the line nor the page.
        box = page.locator("#compare-canvas").bounding_box()
        assert box is not None
        page.touchscreen.tap(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
        wait_until(page, text_has("#loupe-place", "x 12"))
        assert page.get_attribute("#line", "aria-valuenow") == "50"
    finally:
        context.close()


def wait_until_plain(page: Page, condition: str) -> None:
    """As `wait_until`, on a page without a status."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"waited in vain for {condition}; the page says {page.inner_text('body')!r}")
