"""The page in a real Chromium against the fake service."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page
from tests.machine import in_time_sync

pytestmark = pytest.mark.browser

PLAYING = """() => ["video-source", "video-upscaled"].every(
    (id) => document.getElementById(id).videoWidth > 0)"""

NOTE_STATUS = """() => {
  window.told = [];
  const status = document.getElementById("status-text");
  new MutationObserver(() => told.push(status.textContent)).observe(
    status, { childList: true, characterData: true, subtree: true });
}"""
"""Collects what the status says, for what it says only for a moment."""
RECORDED_2_S = """() => /Stop · 0:(0[2-9]|[1-5])/.test(
    document.getElementById("record").textContent)"""


def test_the_page_plays_source_and_upscaled_side_by_side(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, PLAYING)
    sizes = page.evaluate(
        """() => ["video-source", "video-upscaled"].map(
            (id) => document.getElementById(id).videoWidth)"""
    )
    assert sizes == [256, 512]
    assert page.inner_text("#status-text") == "Live"


def test_live_numbers_come_from_the_service(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, "() => document.getElementById('n-fps').textContent === '25.0'")
    assert page.inner_text("#n-output-size") == "512 × 512"
    assert page.inner_text("#n-dropped") == "2 stale"


def test_both_halves_show_the_same_frame(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, PLAYING)
    page.click("#view-compare")
    wait_until(page, "() => document.getElementById('lock').textContent === 'Same frame'")
    page.evaluate("() => { streamlift.sync.readStamps = true; }")
    in_time_sync(lambda: differing(page))


def test_both_halves_go_on_after_a_new_connection(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, PLAYING)
    page.click("#view-compare")
    wait_until(page, "() => streamlift.sync.draws > 5")
    page.evaluate(NOTE_STATUS)
    service.behave(hang_up=True)
    wait_until(page, "() => told.some((text) => text.includes('the service ended the session'))")
    wait_until(page, "() => document.getElementById('status-text').textContent === 'Live'")
    matched = page.evaluate("() => streamlift.sync.matched")
    wait_until(page, f"() => streamlift.sync.matched > {matched} + 10")


def test_a_viewer_before_the_publisher_waits_and_then_plays(page: Page, service: Any) -> None:
    service.behave(published=[])
    page.goto(f"{service.url}?stream=demo")
    wait_until(page, text_has("#status-text", "Nobody publishes “demo” yet"))
    service.behave(published=["demo"])
    wait_until(page, PLAYING)


def test_the_page_connects_again_when_the_service_hangs_up(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, PLAYING)
    page.evaluate(NOTE_STATUS)
    service.behave(hang_up=True)
    wait_until(page, "() => told.some((text) => text.includes('the service ended the session'))")
    wait_until(page, "() => document.getElementById('status-text').textContent === 'Live'")


def test_an_empty_service_says_what_to_do(page: Page, service: Any) -> None:
    service.behave(published=[])
    page.goto(service.url)
    wait_until(page, text_has("#pane-source .notice", "No stream yet. Publish one below."))
    assert not page.is_visible("#stream")


def test_a_blocked_network_is_explained_and_the_named_relay_tried(page: Page, service: Any) -> None:
    service.behave(deaf=True)
    page.add_init_script(
        """window.configurations = [];
        const Native = RTCPeerConnection;
        window.RTCPeerConnection = class extends Native {
          constructor(configuration) { configurations.push(configuration); super(configuration); }
        };"""
    )
    page.goto(service.url)
    wait_until(page, text_has("#status-text", "is UDP blocked?"))
    wait_until(
        page,
        "() => configurations.some(({ iceServers }) => iceServers[0]?.urls.startsWith('turn:'))",
    )


def test_a_full_service_is_said_to_be_full(page: Page, service: Any) -> None:
    service.behave(whep_status=503)
    page.goto(service.url)
    wait_until(page, text_has("#status-text", "The service is full"))


def test_a_token_is_asked_for_and_never_travels_in_a_url(page: Page, service: Any) -> None:
    service.behave(token="secret-token")
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto(service.url)
    wait_until(page, "() => document.getElementById('token').open")
    page.fill("#token input", "secret-token")
    page.keyboard.press("Enter")
    wait_until(page, PLAYING)
    assert not [url for url in urls if "secret-token" in url]
    assert page.evaluate("() => Object.values(sessionStorage)") == ["secret-token"]
    assert page.evaluate("() => Object.values(localStorage)") == []


def test_a_link_brings_its_token_and_the_address_loses_it(page: Page, service: Any) -> None:
    service.behave(token="secret-token")
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url.partition("#")[0]))
    page.goto(f"{service.url}?stream=demo#view=secret-token")
    wait_until(page, PLAYING)
    assert not [url for url in urls if "secret-token" in url]
    assert "secret-token" not in page.evaluate("() => location.href")
    page.reload()
    wait_until(page, PLAYING)


def test_a_declined_token_prompt_stays_away_until_asked_for(page: Page, service: Any) -> None:
    service.behave(token="secret-token")
    page.goto(service.url)
    wait_until(page, "() => document.getElementById('token').open")
    page.keyboard.press("Escape")
    with page.expect_response("**/api/v1/streams"):
        pass
    assert not page.evaluate("() => document.getElementById('token').open")
    page.click("#enter-token")
    assert page.evaluate("() => document.getElementById('token').open")


def test_a_token_without_the_right_to_switch_asks_for_another(page: Page, service: Any) -> None:
    service.behave(control_token="other-token")
    page.goto(service.url)
    page.evaluate("() => sessionStorage.setItem('streamlift.token.view', 'view-token')")
    page.click("#backend-list button:has-text('compact'):not(:disabled)")
    wait_until(page, "() => document.getElementById('token').open")
    page.fill("#token input", "other-token")
    page.keyboard.press("Enter")
    wait_until(page, "() => !document.getElementById('token').open")
    page.click("#backend-list button:has-text('compact')")
    wait_until(page, text_has("#backend-message", "Switched bicubic → compact"))


def test_a_stream_whose_publisher_left_is_said_to_wait(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, PLAYING)
    service.behave(state="waiting", reason="publisher gone")
    wait_until(page, text_has("#status-text", "Waiting: publisher gone"))


def test_panels_without_an_endpoint_are_not_shown(page: Page, service: Any) -> None:
    service.behave(missing=["/api/v1/backends", "/api/v1/events", "/api/v1/sessions"])
    page.goto(service.url)
    wait_until(page, PLAYING)
    assert not page.is_visible("#backends")
    assert not page.is_visible("#events")


def test_without_rtp_origins_the_halves_are_said_not_to_be_locked(page: Page, service: Any) -> None:
    service.behave(missing=["/api/v1/sessions"])
    page.goto(service.url)
    wait_until(page, PLAYING)
    page.click("#view-compare")
    wait_until(page, "() => document.getElementById('lock').textContent === 'Not frame-locked'")


def test_backends_tell_their_state_and_only_ready_ones_can_be_chosen(
    page: Page, service: Any
) -> None:
    page.goto(service.url)
    page.wait_for_selector("#backend-list button:not(:disabled)")
    states = page.evaluate(
        """() => [...document.querySelectorAll("#backend-list button")].map(
            (button) => [button.querySelector("strong").textContent, button.disabled])"""
    )
    assert dict(states) == {
        "bicubic": False,
        "compact": False,
        "realesrgan-x2": True,
        "flashvsr": True,
    }
    assert page.get_attribute("#backend-list button:last-child", "title") == (
        "unavailable: no such device: H100"
    )
    plan = "compact on this machine: tier s with stabiliser: 24.5 CPU ms a frame of 36.0 on 2 cores"
    wait_until(page, text_has("#backend-plan", plan))


def test_a_switch_shows_its_measured_gap(page: Page, service: Any) -> None:
    page.goto(service.url)
    page.wait_for_selector("#backend-list button:not(:disabled)")
    wait_until(page, PLAYING)
    page.click("#backend-list button:has-text('compact')")
    wait_until(page, text_has("#backend-message", "Switched bicubic → compact, gap 41 ms."))
    page.wait_for_selector("#backend-list button[aria-pressed=true]:has-text('compact')")
    assert "Switched bicubic → compact" in page.inner_text("#event-list li:first-child")


def test_a_policy_can_be_chosen(page: Page, service: Any) -> None:
    page.goto(service.url)
    page.click("#policies button:has-text('Quality'):not(:disabled)")
    page.wait_for_selector("#policies button[data-policy=quality][aria-pressed=true]")


def test_a_camera_is_published_with_its_bit_rate_capped_and_h264_first(
    page: Page, service: Any
) -> None:
    page.goto(service.url)
    page.fill("#publish-name", "mine")
    page.click("#publish-start")
    wait_until(page, text_has("#publish-message", "Publishing as “mine”."))
    facts = page.evaluate(
        """() => {
          const { peer } = streamlift.publisher.session;
          const [sender] = peer.getSenders();
          const { encodings, codecs } = sender.getParameters();
          const { width, height } = sender.track.getSettings();
          return { maxBitrate: encodings[0].maxBitrate, codec: codecs[0].mimeType,
                   hint: sender.track.contentHint, width, height,
                   first: /a=rtpmap:\\d+ (\\w+)/.exec(peer.localDescription.sdp)[1] };
        }"""
    )
    assert facts["maxBitrate"] == 4_000_000
    assert facts["first"] == "H264"
    assert facts["hint"] == "motion"
    assert (facts["width"], facts["height"]) == (512, 512)


def test_stopping_deletes_the_publish_session(page: Page, service: Any) -> None:
    page.goto(service.url)
    page.fill("#publish-name", "mine")
    page.click("#publish-start")
    wait_until(page, text_has("#publish-message", "Publishing as"))
    page.click("#publish-stop")
    wait_for(lambda: "DELETE publisher mine" in service.log(), "the publish session to be deleted")
    assert page.inner_text("#publish-message") == "Stopped."


def test_a_file_is_published_through_a_canvas_at_its_own_rate(
    page: Page, service: Any, clip: Path
) -> None:
    page.goto(service.url)
    page.click("label:has(input[value=file])")
    page.set_input_files("#publish-file", clip)
    page.uncheck("#publish-square")
    page.fill("#publish-name", "film")
    page.click("#publish-start")
    wait_until(page, text_has("#publish-message", "Publishing as “film”."))

    def run() -> list[str]:
        before = sent_frames(page)["framesSent"]
        wait_for(lambda: sent_frames(page)["framesSent"] > before + 50, "50 frames to be sent")
        sent = sent_frames(page)
        assert (sent["frameWidth"], sent["frameHeight"]) == (320, 240)
        rate = sent["framesPerSecond"]
        return [] if rate == pytest.approx(25, abs=8) else [f"{rate} frames a second"]

    wait_for(lambda: sent_frames(page).get("framesSent"), "a frame to be sent")
    in_time_sync(run)


def sent_frames(page: Page) -> dict[str, Any]:
    """What Chromium says of the video it sends."""
    report: dict[str, Any] = page.evaluate(
        """async () => {
          const { peer } = streamlift.publisher.session;
          const reports = [...(await peer.getStats()).values()];
          return reports.find((report) => report.type === "outbound-rtp") ?? {};
        }"""
    )
    return report


def test_a_refused_camera_is_explained(page: Page, service: Any, context: BrowserContext) -> None:
    context.clear_permissions()
    page.goto(service.url)
    page.click("#publish-start")
    wait_until(page, text_has("#publish-message", "The camera was refused"))
    assert page.is_enabled("#publish-start")


def test_an_insecure_page_explains_why_there_is_no_camera(page: Page, service: Any) -> None:
    page.goto(service.url.replace("127.0.0.1", "elsewhere.test"))
    page.click("#publish-start")
    wait_until(page, text_has("#publish-message", "HTTPS"))


def test_a_missing_file_is_asked_for(page: Page, service: Any) -> None:
    page.goto(service.url)
    page.click("label:has(input[value=file])")
    page.click("#publish-start")
    wait_until(page, text_has("#publish-message", "Choose a video file first."))


def test_leaving_the_page_deletes_its_sessions(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, PLAYING)
    page.goto("about:blank")
    wait_for(lambda: service.log().count("DELETE viewer demo") == 2, "both views to be deleted")


def test_arrow_keys_move_the_line(page: Page, service: Any) -> None:
    page.goto(service.url)
    page.keyboard.press("c")
    page.focus("#line")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#line", "aria-valuenow") == "54"
    page.keyboard.press("Home")
    assert page.get_attribute("#line", "aria-valuenow") == "0"


def test_zooming_twofold_shows_single_pixels(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, PLAYING)
    page.keyboard.press("+")
    assert page.inner_text("#zoom-reset") == "2×"
    rendering = page.evaluate(
        "() => getComputedStyle(document.getElementById('video-source')).imageRendering"
    )
    assert rendering == "pixelated"
    page.keyboard.press("0")
    assert page.inner_text("#zoom-reset") == "1×"


def test_the_wheel_zooms_once_the_picture_has_the_focus(page: Page, service: Any) -> None:
    page.goto(service.url)
    page.hover("#stage")
    page.mouse.wheel(0, -240)
    assert page.inner_text("#zoom-reset") == "1×"
    page.evaluate("() => window.scrollTo(0, 0)")
    page.focus("#stage")
    page.mouse.wheel(0, -240)
    wait_until(page, text_has("#zoom-reset", "2×"))


def test_freezing_keeps_the_pair_on_screen(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, PLAYING)
    page.keyboard.press("c")
    wait_until(page, "() => streamlift.sync.draws > 5")
    page.click("#freeze")
    before = page.evaluate("() => streamlift.stage.slider.stamps()")
    shown = page.evaluate(
        "() => streamlift.upscaled.video.getVideoPlaybackQuality().totalVideoFrames"
    )
    wait_until(
        page,
        f"() => streamlift.upscaled.video.getVideoPlaybackQuality().totalVideoFrames > {shown} + 9",
    )
    assert page.evaluate("() => streamlift.stage.slider.stamps()") == before


def test_sharpness_and_flicker_are_measured_on_demand(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, PLAYING)
    page.click("#view-compare")
    page.click("#measure")
    wait_until(page, text_has("#said", "Sharpness 1."))
    assert "flicker" in page.inner_text("#said")


def test_a_snapshot_is_saved(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, PLAYING)
    with page.expect_download() as started:
        page.click("#snapshot")
    assert started.value.suggested_filename.startswith("demo-")
    assert started.value.path().read_bytes().startswith(b"\xff\xd8")


def test_a_recording_is_saved_and_plays(page: Page, service: Any, tmp_path: Path) -> None:
    page.goto(service.url)
    wait_until(page, PLAYING)
    page.click("#record")
    wait_until(page, RECORDED_2_S)
    with page.expect_download() as started:
        page.click("#record")
    saved = tmp_path / started.value.suggested_filename
    started.value.save_as(saved)
    with av.open(saved) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames > 20


@pytest.mark.parametrize("width", [390, 768, 1440, 2560])
def test_no_width_scrolls_sideways(page: Page, service: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(service.url)
    page.wait_for_selector("#backend-list button")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_the_layout_does_not_jump_when_the_video_starts(page: Page, service: Any) -> None:
    service.behave(published=[])
    page.goto(f"{service.url}?stream=demo")
    wait_until(page, text_has("#status-text", "Nobody"))
    where = "() => document.querySelector('.numbers').getBoundingClientRect().top"
    before = page.evaluate(where)
    service.behave(published=["demo"])
    wait_until(page, PLAYING)
    assert page.evaluate(where) == before


def test_the_chosen_theme_is_kept(page: Page, service: Any) -> None:
    page.goto(service.url)
    page.click("#theme")
    page.click("#theme")
    page.reload()
    assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"


def test_the_stream_name_is_shown_as_text_and_never_as_markup(page: Page, service: Any) -> None:
    service.behave(published=["<img src=x onerror=alert(1)>"])
    page.goto(service.url)
    page.wait_for_selector("#stream-list button")
    assert page.inner_text("#stream-list strong") == "<img src=x onerror=alert(1)>"


def test_polling_never_has_two_requests_under_way(page: Page, service: Any) -> None:
    open_requests: list[str] = []
    most = 0

    def began(request: Any) -> None:
        nonlocal most
        if request.url.endswith("/api/v1/streams"):
            open_requests.append(request.url)
            most = max(most, len(open_requests))

    def ended(request: Any) -> None:
        if request.url.endswith("/api/v1/streams"):
            open_requests.pop()

    page.on("request", began)
    page.on("requestfinished", ended)
    page.goto(service.url)
    for _ in range(3):
        with page.expect_request_finished(lambda r: r.url.endswith("/api/v1/streams")):
            pass
    assert most == 1


def text_has(selector: str, text: str) -> str:
    """A condition for `wait_until`: an element's text contains this."""
    return (
        f"() => document.querySelector({json.dumps(selector)})"
        f".textContent.includes({json.dumps(text)})"
    )


def differing(page: Page) -> list[str]:
    """What to say of the next 75 draws that can be read, if over a twentieth are of two frames.

    A few are where Chromium had no time: it hands over a frame after the one it told of.
    """
    page.evaluate("() => { streamlift.sync.same = streamlift.sync.different = 0; }")
    wait_until(page, "() => streamlift.sync.same + streamlift.sync.different >= 75")
    sync = page.evaluate("() => streamlift.sync")
    share = sync["same"] / (sync["same"] + sync["different"])
    return [] if share >= 0.95 else [f"only {share:.0%} of the draws show one frame"]


def wait_until(page: Page, condition: str, timeout_s: float = 30) -> None:
    """Wait for a JavaScript condition; Playwright's own way needs eval, which the page forbids."""
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(condition):
        if time.monotonic() > deadline:
            status = page.inner_text("#status-text")
            pytest.fail(f"waited {timeout_s} s in vain for {condition}; status: {status}")
        page.wait_for_timeout(50)


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s} s in vain for {what}")
        time.sleep(0.05)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of 320x240 H.264 at 25 fps."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        video.options = {"preset": "ultrafast"}
        video.time_base = Fraction(1, 25)
        for number in range(50):
            picture = np.full((240, 320, 3), number * 5, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path
