"""The page's pure functions, each imported on its own in Chromium."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@pytest.fixture
def evaluate(page: Page, service: Any) -> Any:
    """`evaluate(module, body)`: run a function body with the module's exports as `m`."""
    page.goto(f"{service.url}static/icon.svg")

    def run(module: str, body: str) -> Any:
        return page.evaluate(
            f"async () => {{ const m = await import('/static/{module}.js'); {body} }}"
        )

    return run


@pytest.mark.parametrize("ending", ["\\n", "\\r\\n", "\\r"])
def test_events_are_parsed_with_every_line_ending(evaluate: Any, ending: str) -> None:
    found = evaluate(
        "sse",
        f"""
        const text = [": hello", "", "id: 7", "event: switched", "data: {{\\"a\\":", "data: 1}}",
                      "", "data: last", "", ""].join("{ending}");
        // One byte at a time: chunks may end anywhere, also between CR and LF.
        const body = new ReadableStream({{ start(controller) {{
          for (const byte of new TextEncoder().encode(text + ": x\\n")) {{
            controller.enqueue(new Uint8Array([byte]));
          }}
          controller.close();
        }} }});
        const events = [];
        for await (const event of m.parseEvents(body)) events.push(event);
        return events;
        """,
    )
    assert found == [
        {"event": "switched", "data": '{"a":\n1}', "id": "7"},
        {"event": "message", "data": "last", "id": "7"},
    ]


def test_a_line_without_end_is_refused(evaluate: Any) -> None:
    found = evaluate(
        "sse",
        """
        const body = new ReadableStream({ start(controller) {
          controller.enqueue(new TextEncoder().encode("data: " + "x".repeat(70000)));
          controller.close();
        } });
        try { for await (const event of m.parseEvents(body)) return event; }
        catch (error) { return error.message; }
        """,
    )
    assert found == "event stream line too long"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3), ("Thu, 01 Jan 1970 00:00:20 GMT", 10), ("soon", None), (None, None)],
)
def test_retry_after_is_seconds_or_a_date(
    evaluate: Any, header: str | None, seconds: int | None
) -> None:
    value = "{}" if header is None else f"{{'retry-after': '{header}'}}"
    assert evaluate("problem", f"return m.retryAfter(new Headers({value}), 10000);") == seconds


def test_ice_servers_are_read_from_link_headers(evaluate: Any) -> None:
    found = evaluate(
        "signalling",
        """return m.iceServersFromLink(
        '<turn:turn.example.net?transport=udp>; rel="ice-server"; username="u"; credential="c,d", '
        + '<stun:stun.example.net>; rel="ice-server", <https://example.net/x>; rel="other"');""",
    )
    assert found == [
        {"urls": "turn:turn.example.net?transport=udp", "username": "u", "credential": "c,d"},
        {"urls": "stun:stun.example.net", "username": None, "credential": None},
    ]


def test_h264_is_preferred_then_vp8(evaluate: Any) -> None:
    found = evaluate(
        "whip",
        """return m.preferred(["video/VP8", "video/AV1", "video/H264", "video/rtx"]
        .map((mimeType) => ({ mimeType }))).map(({ mimeType }) => mimeType);""",
    )
    assert found == ["video/H264", "video/VP8", "video/AV1", "video/rtx"]


@pytest.mark.parametrize(
    ("size", "accepted"),
    [((1920, 1080), [1280, 720]), ((513, 301), [514, 302]), ((40, 30), [64, 64])],
)
def test_published_sizes_are_even_and_within_what_the_service_takes(
    evaluate: Any, size: tuple[int, int], accepted: list[int]
) -> None:
    assert evaluate("sources", f"return m.accepted({size[0]}, {size[1]});") == accepted


def test_frames_are_paired_by_time_whichever_side_is_ahead(evaluate: Any) -> None:
    found = evaluate(
        "pairs",
        """
        const closed = [];
        const pairs = new m.FramePairs();
        const push = (side, pts) =>
          pairs.push(side, pts, { close: () => closed.push(side + pts) });
        const paired = [push("source", 100), push("source", 3700), push("upscaled", 3700),
                        push("upscaled", 7300), push("source", 7301)];
        return { paired, locked: pairs.locked, closed, waiting: pairs.waiting };
        """,
    )
    assert found["paired"] == [False, False, True, False, True]
    assert found["locked"]
    assert sorted(found["closed"]) == ["source100", "source3700", "upscaled3700"]
    assert found["waiting"] == 0


def test_frame_times_are_compared_across_the_wrap_of_the_clock(evaluate: Any) -> None:
    found = evaluate(
        "pairs",
        """
        const pairs = new m.FramePairs();
        pairs.push("source", 4294967290, { close() {} });
        return pairs.push("upscaled", 4, { close() {} });
        """,
    )
    assert found


def test_every_picture_is_given_back(evaluate: Any) -> None:
    found = evaluate(
        "pairs",
        """
        let open = 0;
        const picture = () => { open += 1; return { close: () => { open -= 1; } }; };
        const pairs = new m.FramePairs();
        let most = 0;
        for (let frame = 0; frame < 500; frame += 1) {
          if (frame % 7) pairs.push("source", frame * 3600, picture());
          if (frame % 11) pairs.push("upscaled", (frame - 3) * 3600, picture());
          most = Math.max(most, open);
        }
        pairs.clear();
        return { open, most };
        """,
    )
    assert found["open"] == 0
    assert found["most"] <= 28


def test_frames_that_never_match_are_shown_unlocked(evaluate: Any) -> None:
    found = evaluate(
        "pairs",
        """
        const pairs = new m.FramePairs();
        let shown = 0;
        for (let frame = 0; frame < 30; frame += 1) {
          if (pairs.push("source", frame * 3600, { close() {} })) shown += 1;
          if (pairs.push("upscaled", frame * 3600 + 1e6, { close() {} })) shown += 1;
        }
        return { shown, locked: pairs.locked };
        """,
    )
    assert found["shown"] > 0
    assert not found["locked"]


def test_a_stamp_is_decoded_with_its_gray_coded_time(evaluate: Any) -> None:
    # Number 0x8001; 5 ms is 101 in binary and 111 in Gray code.
    found = evaluate(
        "stamp",
        """
        const bits = "1000000000000001" + "0000000000000111";
        return m.decode((cell) => (bits[cell] === "1" ? 235 : 16));
        """,
    )
    assert found == {"number": 0x8001, "ms": 5}


def test_grey_cells_are_no_stamp(evaluate: Any) -> None:
    assert evaluate("stamp", "return m.decode(() => 120);") is None


def test_sharpness_is_the_spread_of_the_laplacian(evaluate: Any) -> None:
    found = evaluate(
        "measure",
        """
        const flat = new Float32Array(256).fill(80);
        const ramp = Float32Array.from({ length: 256 }, (_, at) => at % 16);
        const check = Float32Array.from({ length: 256 }, (_, at) => ((at + (at >> 4)) % 2) * 10);
        return [flat, ramp, check].map((picture) => m.laplacianSpread(picture, 16));
        """,
    )
    assert found == pytest.approx([0, 0, 40])


def test_still_blocks_forgive_noise_and_not_motion(evaluate: Any) -> None:
    found = evaluate(
        "measure",
        """
        const before = new Float32Array(256).fill(80);
        const now = before.map((value, at) => value + (at % 2 ? 3 : -3));
        for (let y = 0; y < 8; y += 1) for (let x = 8; x < 16; x += 1) now[y * 16 + x] += 20;
        return m.stillBlocks(before, now, 16);
        """,
    )
    assert found == [0, 128, 136]


@pytest.mark.parametrize("length", [1, 14, 15, 26, 60, 61, 110, 150, 200, 260, 320, 450, 560, 666])
def test_a_qr_code_of_any_length_is_read_again(evaluate: Any, length: int) -> None:
    text = ("https://lift.example/?stream=live#publish=" + "aB3-_x" * 120)[:length]
    modules = evaluate("qr", f"return m.qrModules({text!r});")
    dark = np.kron(np.array(modules, np.uint8), np.ones((6, 6), np.uint8))
    picture = np.pad(255 * (1 - dark), 30, constant_values=255).astype(np.uint8)
    found, _, _ = cv2.QRCodeDetector().detectAndDecode(picture)
    assert found == text


def test_a_text_that_is_too_long_for_a_qr_code_is_refused(evaluate: Any) -> None:
    told = evaluate(
        "qr", "try { m.qrModules('x'.repeat(667)); } catch (error) { return error.message; }"
    )
    assert told == "667 bytes are too many for a QR code here"


def test_offered_sizes_have_the_shape_of_the_source_and_even_sides(evaluate: Any) -> None:
    offered = evaluate("settings", "return [[640, 360], [512, 512], [1000, 999]].map(m.sizesFor);")
    assert [[value for value, _ in sizes][5:] for sizes in offered] == [
        ["1280 × 720", "1920 × 1080"],
        ["720 × 720", "1080 × 1080"],
        ["1082 × 1080"],
    ]


def test_the_point_below_the_pointer_follows_the_zoom(evaluate: Any) -> None:
    found = evaluate(
        "drawing",
        """
        const view = { left: 0, top: 0, width: 400, height: 200 };
        const point = (zoom, x, y) => m.pointOf(m.placed(view, [100, 100], zoom), { x, y });
        return [point({ scale: 1, x: 0.5, y: 0.5 }, 200, 100),
                point({ scale: 1, x: 0.5, y: 0.5 }, 100, 0),
                point({ scale: 1, x: 0.5, y: 0.5 }, 99, 0),
                point({ scale: 4, x: 0.25, y: 0.5 }, 300, 100)];
        """,
    )
    assert found == [{"x": 0.5, "y": 0.5}, {"x": 0, "y": 0}, None, {"x": 0.375, "y": 0.5}]


def test_an_address_that_was_written_is_read_back(evaluate: Any) -> None:
    found = evaluate(
        "share",
        """
        const looked = { stream: "ä b", view: "compare", zoom: 3.3333, x: 0.25, y: 0.75,
                         line: 0.3, factor: 8 };
        const href = m.writeAddress("https://user:pw@h/x/?token=t&stream=old#view=t", looked).href;
        return { href, same: JSON.stringify(m.readAddress(href)) === JSON.stringify(looked) };
        """,
    )
    address = "https://h/x/?stream=%C3%A4+b&view=compare&zoom=3.3333&at=0.25_0.75&line=0.3"
    assert found == {"href": address, "same": True}


@pytest.mark.parametrize(
    "query", ["", "view=other&zoom=17&at=2_-1&factor=3&line=x", "zoom=&at=&factor=&line=", "at=_"]
)
def test_what_an_address_asks_for_out_of_range_is_left_as_usual(evaluate: Any, query: str) -> None:
    found = evaluate("share", f"return m.readAddress('https://h/?{query}');")
    usual = {"stream": None, "view": "side", "zoom": 1, "x": 0.5, "y": 0.5, "line": 0.5}
    assert found == usual | {"factor": 8}


def test_what_replay_keeps_is_bounded_in_bytes_and_in_time(evaluate: Any) -> None:
    found = evaluate(
        "replay",
        """
        const ring = new m.Ring(1000, 4000);
        const gone = [];
        let most = 0;
        for (let at = 0; at < 200; at += 1) {
          gone.push(ring.push({ bytes: at < 100 ? 60 : 10, shownMs: at * 100 })?.shownMs);
          most = Math.max(most, ring.bytes);
        }
        const span = ring.at(ring.length - 1).shownMs - ring.at(0).shownMs;
        ring.push({ bytes: 5000, shownMs: 20000 });
        return { most, span, alone: ring.length, gone: gone.slice(15, 18) };
        """,
    )
    # One picture that is larger than all room is kept alone, so that there is always one.
    assert found == {"most": 1000, "span": 4000, "alone": 1, "gone": [None, 0, 100]}


def test_time_between_pictures_is_the_streams_own_across_its_wrap(evaluate: Any) -> None:
    found = evaluate(
        "replay",
        """
        const shot = (pts, shownMs) => ({ pts, shownMs });
        return [m.elapsedMs(shot(4294965496, 0), shot(1800, 500)),
                m.elapsedMs(shot(null, 100), shot(1800, 500))];
        """,
    )
    assert found == [40, 400]


@pytest.mark.parametrize(
    ("picture", "count", "expected"),
    [((1024, 1024), 2, [2072, 1146]), ((3840, 2160), 3, [5792, 1308]), ((101, 99), 2, [344, 232])],
)
def test_a_comparison_has_even_sides_and_panes_in_the_pictures_shape(
    evaluate: Any, picture: tuple[int, int], count: int, expected: list[int]
) -> None:
    found = evaluate(
        "comparison",
        f"""
        const {{ width, height, panes }} = m.layOut({list(picture)}, {count});
        return {{ size: [width, height], panes: panes.length,
                 inside: panes.every((pane) => pane.left + pane.width + 8 <= width) }};
        """,
    )
    assert found == {"size": expected, "panes": count, "inside": True}


def test_a_comparison_says_stream_time_and_zoom(evaluate: Any) -> None:
    found = evaluate(
        "comparison",
        """
        const words = { stream: "mine", shownMs: 1e12 + 250, names: {}, factor: null };
        return [m.title(words, { scale: 1, x: 0.5, y: 0.5 }, true),
                m.title(words, { scale: 4, x: 0.25, y: 0.6 }, false)];
        """,
    )
    assert found == [
        "mine  ·  2001-09-09 01:46:40.250 UTC  ·  zoom 1×  ·  same frame",
        "mine  ·  2001-09-09 01:46:40.250 UTC  ·  zoom 4× at 25 %, 60 %  ·  NOT the same frame",
    ]
