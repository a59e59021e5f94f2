"""A and B on the page: two backends of one stream, and side by side in step."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page
from tests.machine import in_time_sync
from tests.web.test_page import PLAYING, differing, text_has, wait_for, wait_until

pytestmark = pytest.mark.browser

IN_STEP = """() => streamlift.stage.inStep.kept && [...document.querySelectorAll("canvas.in-step")]
    .every((canvas) => canvas.style.visibility === "visible" && canvas.width > 300)"""
OFFERED = "() => [...document.getElementById('other').options].some(({ value }) => value)"


def test_side_by_side_shows_one_frame_on_both_sides(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, PLAYING)
    wait_until(page, IN_STEP)
    page.evaluate("() => { streamlift.sync.readStamps = true; }")
    in_time_sync(lambda: differing(page))
    assert page.inner_text(".step-words") == ""


def test_what_is_not_in_step_is_said_to_be_so_and_the_videos_are_seen(
    page: Page, service: Any
) -> None:
    service.behave(missing=["/api/v1/sessions"])
    page.goto(service.url)
    wait_until(page, PLAYING)
    wait_until(page, text_has(".step-words", "Not in step: these may be two different frames."))
    hidden = page.evaluate(
        """() => [...document.querySelectorAll("canvas.in-step")].map(
            (canvas) => canvas.style.visibility)"""
    )
    assert hidden == ["hidden", "hidden"]


def test_a_picture_without_its_partner_is_not_shown_as_a_pair(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, IN_STEP)
    service.behave(stuck=["source"])
    wait_until(page, text_has(".step-words", "Not in step: no two pictures of one frame come."))
    assert not page.evaluate("() => streamlift.stage.inStep.kept")
    service.behave(stuck=[])
    wait_until(page, IN_STEP)
    wait_until(page, "() => document.querySelector('.step-words').hidden")


def test_another_backend_is_compared_with_and_left_again(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, PLAYING)
    wait_until(page, OFFERED)
    page.click("#view-compare")
    page.select_option("#other", "compact")
    wait_until(page, "() => document.getElementById('lock').textContent === 'Same frame'")
    assert "COMPARE compact" in service.log()
    names = page.locator("#compare [data-name-of]").all_inner_texts()
    assert names == ["A · compact", "B · bicubic"]
    assert page.evaluate("() => streamlift.source.video.videoWidth") == 512
    page.evaluate("() => { streamlift.sync.readStamps = true; }")
    in_time_sync(lambda: differing(page))
    page.select_option("#other", "")
    wait_until(page, "() => streamlift.source.video.videoWidth === 256")
    wait_for(lambda: "DELETE viewer demo" in service.log(), "the comparison to be ended")
    assert page.locator("#compare [data-name-of]").all_inner_texts()[0] == "A · Source"


def test_only_ready_backends_can_be_compared_with(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, OFFERED)
    options = page.evaluate(
        """() => [...document.getElementById("other").options].map(
            ({ textContent, disabled }) => [textContent, disabled])"""
    )
    assert options == [
        ["Source", False],
        ["bicubic", False],
        ["compact", False],
        ["realesrgan-x2 (loading)", True],
        ["flashvsr (unavailable)", True],
    ]


def test_a_full_backend_is_said_to_be_full_and_the_stream_goes_on(page: Page, service: Any) -> None:
    service.behave(compare_status=503)
    page.goto(service.url)
    wait_until(page, PLAYING)
    wait_until(page, OFFERED)
    page.select_option("#other", "compact")
    wait_until(page, text_has("#pane-source .notice", "backend compact is full"))
    assert page.inner_text("#status-text") == "Live"
    service.behave(compare_status=0)
    wait_until(page, IN_STEP)


def test_comparing_asks_for_a_token_that_may_control(page: Page, service: Any) -> None:
    service.behave(control_token="other-token")
    page.goto(service.url)
    page.evaluate("() => sessionStorage.setItem('streamlift.token.view', 'view-token')")
    wait_until(page, PLAYING)
    wait_until(page, OFFERED)
    page.select_option("#other", "compact")
    wait_until(page, "() => document.getElementById('token').open")
    page.fill("#token input", "other-token")
    page.keyboard.press("Enter")
    wait_until(page, IN_STEP)
    assert "COMPARE compact" in service.log()


def test_a_lane_that_is_left_out_is_said_to_be(page: Page, service: Any) -> None:
    page.goto(service.url)
    wait_until(page, PLAYING)
    wait_until(page, OFFERED)
    page.select_option("#other", "compact")
    wait_until(page, IN_STEP)
    service.behave(compared="left_out", stuck=["backend"])
    wait_until(page, text_has(".step-words", "compact is left out for now: the machine is busy"))
