"""What may be asked for as an output, and what is refused without repeating it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.routing.fakes import FakePublisher
from tests.serving import light, until

from streamlift.config import OutputsConfig

OUTPUTS = "/api/v1/streams/live/outputs"
KEY = "canary-key-4711"
HERE = OutputsConfig(allowed_hosts=("127.0.0.1",), devices=("/dev/video-of-a-test",))


@pytest.fixture
async def http(call: Callable[..., Any]) -> Any:
    """A service with a stream that has no picture: what is pushed of it waits for its first."""
    http = await call(light(outputs=HERE))
    service = http._transport.app.state.service
    publisher = FakePublisher()
    publishing = service.tasks.create_task(service.router.publish("live", publisher))
    await until(lambda: service.router.streams(), "the stream")
    yield http
    publisher.end()
    await publishing


async def test_each_type_is_told_without_its_secrets(http: Any) -> None:
    here = "127.0.0.1:9"
    asked = [
        ({"type": "whip", "url": f"http://{here}/whip?k={KEY}", "token": KEY}, "/whip"),
        ({"type": "whip", "url": f"http://{here}/{2 * KEY}/publish"}, ":9/.../publish"),
        ({"type": "rtmp", "url": f"rtmp://{here}/app", "token": KEY}, "/app/..."),
        ({"type": "rtmp", "url": f"rtmp://{here}/app/{KEY}"}, "/app/..."),
        ({"type": "rtsp", "url": f"rtsp://me:{KEY}@{here}/live?k={KEY}"}, f"//{here}/live"),
        ({"type": "rtsp", "url": f"rtsp://me@{here}/live", "token": KEY}, f"//{here}/live"),
    ]
    for body, shown in asked:
        made = await http.post(OUTPUTS, json=body)
        assert made.status_code == 201, made.text
        assert made.json()["url"].endswith(shown)
        keys = {"id", "type", "url", "state", "reason", "connections", "bytes_sent"}
        assert set(made.json()) == keys | {"frames_skipped"}
    camera = {"type": "v4l2", "device": "/dev/video-of-a-test"}
    told = (await http.post(OUTPUTS, json=camera)).json()
    assert (told["device"], told["frames_written"]) == ("/dev/video-of-a-test", 0)
    listed = (await http.get(OUTPUTS)).json()["outputs"]
    types = [
        "whip",
        "whip",
        "rtmp",
        "rtmp",
        "rtsp",
        "rtsp",
        "v4l2",
    ]
    assert [one["type"] for one in listed] == types
    assert KEY not in json.dumps(listed)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"type": "rtmp", "url": f"rtmp://203.0.113.9/live/{KEY}"}, "allowed_hosts"),
        ({"type": "rtmp", "url": f"http://127.0.0.1/live/{KEY}"}, "rtmp://"),
        ({"type": "rtmp", "url": f"rtmp://127.0.0.1/{KEY}"}, "stream key"),
        ({"type": "rtmp", "url": f"rtmp://me:{KEY}@127.0.0.1/live/x"}, "password"),
        ({"type": "rtsp", "url": f"rtsp://me:{KEY}@203.0.113.9/x"}, "allowed_hosts"),
        ({"type": "rtsp", "url": f"rtsp://me%0d:{KEY}@127.0.0.1/x"}, "control characters"),
        ({"type": "rtsp", "url": f"rtsp://[::1/{KEY}"}, "cannot be"),
        ({"type": "v4l2", "device": "/dev/video10"}, "outputs.devices"),
        ({"type": "v4l2", "url": KEY}, "device"),
        ({"type": "srt", "url": KEY}, "whip"),
        ({"type": "whip", "url": f"rtmp://127.0.0.1/live/{KEY}"}, "https://"),
        ({"type": "rtmp", "url": 5, "token": KEY}, "url"),
    ],
)
async def test_what_cannot_be_is_refused_in_words(http: Any, body: Any, words: str) -> None:
    refused = await http.post(OUTPUTS, json=body)
    assert refused.status_code == 422
    assert words in refused.text
    assert KEY not in refused.text


async def test_eight_are_a_streams_most_whatever_they_are(http: Any) -> None:
    for number in range(8):
        scheme = ("rtmp", "rtsp")[number % 2]
        body = {"type": scheme, "url": f"{scheme}://127.0.0.1:9/live/{number}"}
        assert (await http.post(OUTPUTS, json=body)).status_code == 201
    full = await http.post(OUTPUTS, json={"type": "rtmp", "url": f"rtmp://127.0.0.1/a/{KEY}"})
    assert full.status_code == 503
    assert KEY not in full.text
