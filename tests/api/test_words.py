"""What callers are told is in the words of the protocols, never in those of Python."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from tests.media.odd_sdp import odd_offers
from tests.peers import SDP, make_offer
from tests.serving import light

from streamlift.config import LimitsConfig

PYTHON = re.compile(
    r"<class|<[\w.]+ object|object at 0x|NoneType|Traceback|\b[A-Za-z]+(?:Error|Exception)\b"
    r"|\bStopIteration\b|\b[A-Z][a-z]\w*\(|<\w+\.\w+: |\bdict\b|\bb'|__\w+__|line \d+, in "
)
BODIES: list[Any] = [
    None,
    [],
    {},
    "text",
    5,
    True,
    1e999,
    {"unknown": None},
    {"backend": None},
    {"backend": 5, "mode": {}},
    {"backend": "none"},
    {"policy": []},
    {"bitrate_bps": "x", "idle": 5, "stabilise": {}},
    {"bitrate_bps": -1},
    {"right": None, "ttl_s": True},
    {"right": "view", "ttl_s": 10**30},
    {"type": None, "url": None},
    {"type": "whip", "url": 5},
    {"type": "whip", "url": "https://[::1"},
    {"type": "rtp", "url": "rtp://x"},
    {"name": None, "source": None},
    {"name": "a", "source": {}},
    {"name": "a", "source": {"kind": 5}},
    {"name": "a", "source": {"kind": "whep", "url": {}}},
    {"name": "a", "source": {"kind": "whep", "url": "http://x:99999/"}},
    {"name": "a", "source": {"kind": "scope", "url": "", "pipeline": None, "parameters": [1]}},
    {"name": "ü b", "source": {"kind": "daydream", "stream_id": None}},
    {"prompts": [{"text": None}, 5], "parameters": {"a": {"b": []}}},
]
JSON = {"Content-Type": "application/json"}
QUERIES = ["", "?view=None", "?view=[]", "?since=x", "?last=-1&limit=1e9", "?%00=%ff"]


@pytest.fixture
async def told(
    call: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Callable[[str, httpx.Response], None]]:
    """Notes an answer; at the end none of them, and no line of the log, may speak Python."""
    caplog.set_level(logging.INFO)
    answers: list[tuple[str, str]] = []

    def note(what: str, answer: httpx.Response) -> None:
        assert answer.status_code < 500 or answer.status_code == 503, (what, answer.text)
        if answer.is_error:
            answers.append((what, answer.text))

    yield note
    assert answers, "nothing was refused"
    assert not [(what, text) for what, text in answers if PYTHON.search(text)]
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("streamlift")]
    assert not [line for line in lines if PYTHON.search(line)]
    assert not [r for r in caplog.records if r.exc_info], "a traceback in the log"


async def test_no_json_body_is_answered_in_python(
    call: Callable[..., Any], told: Callable[[str, httpx.Response], None]
) -> None:
    http: httpx.AsyncClient = await call()
    for path, operations in http._transport.app.openapi()["paths"].items():  # type: ignore[attr-defined]
        address = re.sub(r"\{[^}]+\}", "live", path)
        for method in operations:
            if address.endswith("/events") and method == "get":
                continue  # does not end
            for query in QUERIES:
                told(f"{method} {path}{query}", await http.request(method, address + query))
            if method in ("post", "put", "patch"):
                for body in BODIES:
                    answer = await http.request(
                        method, address, content=json.dumps(body), headers=JSON
                    )
                    told(f"{method} {path} {body}", answer)


@pytest.mark.long
async def test_no_odd_offer_is_answered_in_python_nor_by_an_error_of_ours(
    call: Callable[..., Any], told: Callable[[str, httpx.Response], None]
) -> None:
    http: httpx.AsyncClient = await call(light(limits=LimitsConfig(handshakes_per_address=64)))
    good = await make_offer("publish")
    for what, sdp in odd_offers(good):
        answer = await http.post("/whip/live", content=sdp.encode(), headers=SDP)
        told(what, answer)
        if answer.status_code == 201:
            assert "a=candidate:" in answer.text, what
            await http.delete(answer.headers["location"])
    viewers = await make_offer("view")
    for sdp in (good, viewers, viewers.replace("a=recvonly", "a=sendonly")):
        told("a viewer", await http.post("/whep/live", content=sdp, headers=SDP))
