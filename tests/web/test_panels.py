"""The panels that open: weights, settings, addresses, sources, outputs and files."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, Route

pytestmark = pytest.mark.browser

ABOUT = {
    "version": "0",
    "tokens": False,
    "links": False,
    "rtsp_port": 8554,
    "weights_download": True,
    "files": {"largest_bytes": 2_000_000, "upscalers": ["compact", "bicubic"]},
}
PANELS = ("settings", "connect", "pull", "outputs", "files")


class Api:
    """Answers of the control API that the fake service has not, and what was asked of it."""

    def __init__(self, page: Page) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: dict[tuple[str, str], Callable[[], tuple[int, Any]]] = {}
        page.route("**/api/v1/**", self._route)
        self.put("GET", "about", lambda: (200, ABOUT))

    def put(self, method: str, path: str, answer: Callable[[], tuple[int, Any]]) -> None:
        """`path` as it follows /api/v1/, without its query."""
        self.answers[method, path] = answer

    def bodies(self, method: str, path: str) -> list[Any]:
        return [body for m, p, body in self.asked if (m, p) == (method, path)]

    def _route(self, route: Route) -> None:
        request = route.request
        path = urlsplit(request.url).path.partition("/api/v1/")[2]
        answer = self.answers.get((request.method, path))
        if answer is None:
            route.fallback()
            return
        body = request.post_data_buffer
        try:
            self.asked.append((request.method, path, json.loads(body or b"null")))
        except ValueError:
            self.asked.append((request.method, path, body))
        status, content = answer()
        if content is None:
            route.fulfill(status=status)
        elif isinstance(content, bytes):
            route.fulfill(status=status, body=content)
        else:
            route.fulfill(status=status, json=content)


@pytest.fixture
def api(page: Page) -> Api:
    return Api(page)


def wait_until(page: Page, check: str) -> None:
    page.wait_for_function(check, timeout=15_000)


def says(page: Page, where: str, text: str) -> None:
    wait_until(
        page, f"() => document.querySelector({where!r})?.textContent.includes({text!r}) ?? false"
    )


def open_panel(page: Page, service: Any, name: str) -> None:
    page.goto(service.url)
    wait_until(page, "() => document.getElementById('stream').value === 'demo'")
    page.click(f"#{name} > summary")


def backend(**changes: Any) -> dict[str, Any]:
    return {
        "name": "flashvsr",
        "upscaler": "flashvsr",
        "device": "cuda:0",
        "state": "unavailable",
        "reason": "x.ckpt is missing; `streamlift weights pull flashvsr` fetches it",
        "fps": None,
        "slots": {"total": 0, "used": 0},
        "workers": [],
        "plan": None,
        "weights": {
            "missing": ["a", "b"],
            "bytes": 6_440_000_000,
            "command": "streamlift weights pull flashvsr",
            "may_download": True,
            "error": "",
        },
        "download": None,
        **changes,
    }


def test_a_backend_without_weights_says_what_to_do(page: Page, service: Any, api: Api) -> None:
    lacking = {**backend()["weights"], "may_download": False}
    api.put("GET", "backends", lambda: (200, {"backends": [backend(weights=lacking)]}))
    page.goto(service.url)
    says(page, ".weights", "Its weights are not here (2 files, 6.4 GB).")
    assert page.inner_text(".weights code") == "streamlift weights pull flashvsr"
    assert page.inner_text("#backend-list .choice small") == "cuda:0: weights missing"
    assert not page.is_visible(".weights button")


def test_weights_are_fetched_from_the_page_with_progress(
    page: Page, service: Any, api: Api
) -> None:
    now = backend()
    api.put("GET", "backends", lambda: (200, {"backends": [now]}))

    def begin() -> tuple[int, Any]:
        now["download"] = {"bytes": 1_000_000_000, "total": 4_000_000_000}
        return 202, now

    def stop() -> tuple[int, Any]:
        now["download"] = None
        return 204, None

    api.put("POST", "backends/flashvsr/weights", begin)
    api.put("DELETE", "backends/flashvsr/weights", stop)
    page.goto(service.url)
    page.click(".weights button:text-is('Download')")
    says(page, ".weights", "Fetching its weights: 1.0 GB of 4.0 GB.")
    assert page.evaluate("() => document.querySelector('.weights progress').value") == 0.25
    page.click(".weights button:text-is('Cancel')")
    page.click(".weights button:text-is('Download')")
    says(page, ".weights", "Fetching")
    now.update(weights=None, download=None, state="ready", fps=30.0)
    page.wait_for_selector(".weights", state="detached")
    page.wait_for_selector("#backend-list .choice:not(:disabled)")


def test_a_refused_download_says_why(page: Page, service: Any, api: Api) -> None:
    api.put("GET", "backends", lambda: (200, {"backends": [backend()]}))
    refusal = {"title": "No room", "detail": "no room for the weights of flashvsr"}
    api.put("POST", "backends/flashvsr/weights", lambda: (507, refusal))
    page.goto(service.url)
    page.click(".weights button")
    says(page, ".weights .message", "no room for the weights of flashvsr")


def test_closed_panels_ask_for_nothing(page: Page, service: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    page.goto(service.url)
    with page.expect_request(lambda r: r.url.endswith("/api/v1/streams")):
        pass
    assert not [path for path in asked if path.endswith(("/outputs", "/source", "/files"))]


def test_settings_are_changed_on_the_stream_that_is_shown(
    page: Page, service: Any, api: Api
) -> None:
    api.put("PATCH", "streams/demo", lambda: (200, {}))
    open_panel(page, service, "settings")
    page.select_option("#settings-stabilise", "strong")
    says(page, "#settings-message", "Stabiliser: strong.")
    page.fill("#settings-bitrate", "3.5")
    page.keyboard.press("Enter")
    says(page, "#settings-message", "Bit rate: 3.5 Mbit/s.")
    page.select_option("#settings-idle", "pause")
    says(page, "#settings-message", "Without viewers: pause.")
    page.select_option("#settings-scale", "1.5")
    says(page, "#settings-message", "Size: 1.5×.")
    page.select_option("#settings-scale", "720 × 720")
    says(page, "#settings-message", "Size: 720 × 720.")
    page.fill("#settings-bitrate", "900")
    page.keyboard.press("Tab")
    says(page, "#settings-message", "0.1 to 50 Mbit/s")
    assert api.bodies("PATCH", "streams/demo") == [
        {"stabilise": "strong"},
        {"bitrate_bps": 3_500_000},
        {"idle": "pause"},
        {"target": {"scale": 1.5}},
        {"target": {"size": [720, 720]}},
    ]


def test_a_stream_is_fetched_from_each_kind_of_source(page: Page, service: Any, api: Api) -> None:
    api.put("POST", "streams", lambda: (201, {}))
    open_panel(page, service, "pull")
    page.fill("#pull-url", "https://a.example/whep/x")
    page.fill("#pull-token", "secret")
    page.click("#pull-form button")
    says(page, "#pull-message", "The service fetches “fetched” now.")
    assert page.input_value("#pull-token") == ""
    page.select_option("#pull-kind", "scope")
    page.fill("#pull-url", "")
    page.fill("#pull-prompt", "a fox")
    page.click("#pull-form button")
    page.select_option("#pull-kind", "daydream")
    page.fill("#pull-id", "str_1")
    page.click("#pull-form button")
    page.select_option("#pull-kind", "url")
    page.fill("#pull-url", "rtsp://cam/x")
    page.click("#pull-form button")
    wait_until(page, "() => document.getElementById('pull-message').textContent.length > 0")
    page.wait_for_timeout(100)
    assert [body["source"] for body in api.bodies("POST", "streams")] == [
        {"kind": "whep", "url": "https://a.example/whep/x", "token": "secret"},
        {"kind": "scope", "prompts": ["a fox"]},
        {"kind": "daydream", "stream_id": "str_1"},
        {"kind": "url", "url": "rtsp://cam/x"},
    ]


def test_a_scope_is_prompted_and_its_state_shown(page: Page, service: Any, api: Api) -> None:
    source = {
        "stream": "demo",
        "kind": "scope",
        "url": "http://gpu:8000",
        "pipeline": "longlive",
        "parameters": {"prompts": [{"text": "a fox", "weight": 1}]},
        "state": "connecting",
        "reason": "Scope loads longlive",
    }
    api.put("GET", "streams/demo/source", lambda: (200, source))
    api.put("PUT", "streams/demo/source", lambda: (202, source))
    open_panel(page, service, "pull")
    says(page, "#source-state", "from http://gpu:8000 (scope): connecting: Scope loads longlive")
    assert page.input_value("#prompt") == "a fox"
    page.fill("#prompt", "a hare\nin snow")
    page.click("#prompt-form button")
    says(page, "#prompt-message", "Scope was told.")
    assert api.bodies("PUT", "streams/demo/source") == [{"prompts": ["a hare", "in snow"]}]


def test_outputs_are_shown_added_and_ended(page: Page, service: Any, api: Api) -> None:
    outputs: list[dict[str, Any]] = [
        {
            "id": "a1",
            "type": "whip",
            "url": "https://sfu/whip/x",
            "state": "refused",
            "reason": "401: token",
            "bytes_sent": 0,
        }
    ]
    api.put("GET", "streams/demo/outputs", lambda: (200, {"outputs": outputs}))
    api.put("POST", "streams/demo/outputs", lambda: (201, {}))

    def end() -> tuple[int, Any]:
        outputs.clear()
        return 204, None

    api.put("DELETE", "streams/demo/outputs/a1", end)
    open_panel(page, service, "outputs")
    says(page, "#output-list", "whip: refused · https://sfu/whip/x · 0 kB · 401: token")
    page.select_option("#output-type", "rtmp")
    page.fill("#output-url", "rtmp://a.example/live")
    page.fill("#output-token", "key")
    page.click("#output-form button")
    says(page, "#output-message", "Added.")
    page.select_option("#output-type", "v4l2")
    page.fill("#output-url", "/dev/video10")
    page.click("#output-form button")
    page.click("#output-list button")
    says(page, "#output-message", "Ended.")
    page.wait_for_selector("#output-empty", state="visible")
    assert api.bodies("POST", "streams/demo/outputs") == [
        {"type": "rtmp", "url": "rtmp://a.example/live", "token": "key"},
        {"type": "v4l2", "device": "/dev/video10"},
    ]


def test_addresses_are_copied(page: Page, service: Any, api: Api, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=service.url.rstrip("/"))
    open_panel(page, service, "connect")
    says(page, "#connect-list", "rtsp://127.0.0.1:8554/demo")
    says(page, "#connect-list", f"{service.url}?stream=demo&view=clean")
    page.click("button[aria-label='Copy WHIP address (publish)']")
    says(page, "#connect-message", "Copied: WHIP address (publish).")
    assert page.evaluate("() => navigator.clipboard.readText()") == f"{service.url}whip/demo"
    page.fill("#connect-name", "mine")
    says(page, "#connect-list", f"-f whip {service.url}whip/mine")
    says(page, "#connect-list", f'WhepSession.open("{service.url}whep/mine", {{ audio: true }})')


def test_a_qr_code_leads_to_the_page_that_publishes(page: Page, service: Any, api: Api) -> None:
    open_panel(page, service, "connect")
    page.fill("#connect-name", "phone")
    page.click("#connect-publish")
    says(page, "#connect-message", "which a phone cannot reach")
    url = f"{service.url}?stream=phone&publish=phone"
    drawn = page.evaluate("() => document.querySelector('.qr path').getAttribute('d')")
    modules = page.evaluate("(url) => import('/static/qr.js').then((m) => m.qrModules(url))", url)
    # That modules are read again is shown in test_modules.py; four light ones stand around them.
    assert drawn == "".join(
        f"M{x + 4} {y + 4}h1v1h-1z"
        for y, row in enumerate(modules)
        for x, dark in enumerate(row)
        if dark
    )
    page.goto(url)
    assert page.input_value("#publish-name") == "phone"
    assert page.evaluate("() => document.activeElement.id") == "publish-start"


def test_a_link_that_ends_is_made_where_the_service_makes_them(
    page: Page, service: Any, api: Api
) -> None:
    api.put("GET", "about", lambda: (200, {**ABOUT, "links": True, "tokens": True}))
    link = {"id": "x", "url": "https://lift.example/?stream=demo#publish=tok", "expires": 1}
    api.put("POST", "streams/demo/links", lambda: (201, link))
    open_panel(page, service, "connect")
    says(page, "#connect-list", "rtsp://view:VIEW_TOKEN@127.0.0.1:8554/demo")
    page.click("#connect-publish")
    says(page, "#connect-message", "Scan it to publish “demo”. It ends in an hour.")
    url = page.inner_text("#connect-qr code")
    assert url == "https://lift.example/?stream=demo&publish=demo#publish=tok"
    assert api.bodies("POST", "streams/demo/links") == [{"right": "publish", "ttl_s": 3600}]


def test_a_file_is_sent_followed_and_saved(page: Page, service: Any, api: Api) -> None:
    job = {
        "id": "j1",
        "name": "a.png",
        "state": "working",
        "reason": "",
        "pictures": 5,
        "total": 10,
        "fps": 2.5,
        "bytes": None,
        "result": "a-upscaled.png",
        "warnings": [],
    }
    jobs: list[dict[str, Any]] = []
    urls: list[str] = []
    page.on("request", lambda r: urls.append(r.url) if r.method == "POST" else None)
    api.put("GET", "files", lambda: (200, {"files": jobs}))

    def take() -> tuple[int, Any]:
        jobs.append(job)
        return 201, job

    api.put("POST", "files", take)
    api.put("GET", "files/j1/result", lambda: (200, b"picture"))
    open_panel(page, service, "files")
    assert page.inner_text("#files-limit") == "At most 2.0 MB."
    page.click("#files-send")
    says(page, "#files-message", "Choose a file first.")
    page.set_input_files(
        "#files-file", {"name": "big.png", "mimeType": "image/png", "buffer": bytes(2_100_000)}
    )
    page.click("#files-send")
    says(page, "#files-message", "2.1 MB; this service takes 2.0 MB at most.")
    page.set_input_files(
        "#files-file", {"name": "a.png", "mimeType": "image/png", "buffer": b"\x89PNG"}
    )
    page.select_option("#files-scale", "3")
    page.click("#files-send")
    says(page, "#files-list", "a.png: 5 of 10 pictures, 2.5 a second")
    query = parse_qs(urlsplit(urls[-1]).query)
    assert query == {
        "name": ["a.png"],
        "upscaler": ["compact"],
        "scale": ["3"],
        "stabilise": ["off"],
    }
    assert api.bodies("POST", "files") == [b"\x89PNG"]
    job.update(state="done", bytes=2048, pictures=10)
    says(page, "#files-list", "a.png: 10 pictures, 2 kB")
    with page.expect_download() as started:
        page.click("#files-list button:text-is('Save')")
    assert started.value.suggested_filename == "a-upscaled.png"
    assert started.value.path().read_bytes() == b"picture"


def test_where_no_files_are_taken_there_is_no_panel(page: Page, service: Any, api: Api) -> None:
    api.put("GET", "about", lambda: (200, {**ABOUT, "files": None}))
    page.goto(service.url)
    page.wait_for_selector("#backend-list button")
    assert not page.is_visible("#files")


@pytest.mark.parametrize("width", [320, 390, 1440])
def test_open_panels_scroll_at_no_width_sideways_and_every_control_has_a_name(
    page: Page, service: Any, api: Api, width: int
) -> None:
    api.put("GET", "backends", lambda: (200, {"backends": [backend()]}))
    api.put("GET", "streams/demo/outputs", lambda: (200, {"outputs": []}))
    api.put("GET", "files", lambda: (200, {"files": []}))
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(service.url)
    page.wait_for_selector("#files summary")
    for name in PANELS:  # by keyboard
        page.focus(f"#{name} > summary")
        page.keyboard.press("Enter")
        wait_until(page, f"() => document.getElementById('{name}').open")
    page.click("#connect-watch")
    page.wait_for_selector(".qr")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    nameless = page.evaluate(
        """() => [...document.querySelectorAll(".panel input, .panel select, .panel textarea,"
                                               + ".panel button, .weights button")]
            .filter((e) => !e.labels?.length && !e.getAttribute("aria-label")
                           && !e.textContent.trim())
            .map((e) => e.outerHTML)"""
    )
    assert nameless == []
