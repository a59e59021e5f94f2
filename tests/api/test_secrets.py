"""No secret leaves the service: not in an answer, not in the log, not for those who guess."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from tests.peers import SDP, make_offer
from tests.routing.fakes import FakePublisher
from tests.serving import light, until

from streamlift.config import (
    AuthConfig,
    IceConfig,
    IceServer,
    OutputsConfig,
    PushConfig,
    SourcesConfig,
    TokenConfig,
)

CANARIES = {
    "publish": "canary-publish-7f3a91",
    "view": "canary-view-7f3a92",
    "control": "canary-control-7f3a93",
    "link": "canary-link-secret-7f3a94-of-32-characters",
    "turn": "canary-turn-7f3a95",
    "push": "canary-push-7f3a96",
    "key": "canary-daydream-7f3a97",
    "source": "canary-source-7f3a98",
}
GUESS = "canary-guess-7f3a99"


async def test_a_full_run_tells_no_secret(
    call: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = CANARIES
    http = await call(
        light(
            auth=AuthConfig(
                publish=(secret["publish"],),
                view=(TokenConfig(secret["view"], ("live",)),),
                control=(secret["control"],),
                link_secret=secret["link"],
            ),
            ice=IceConfig((IceServer("turn:127.0.0.1:9"),), turn_secret=secret["turn"]),
            outputs=OutputsConfig(
                allowed_hosts=("127.0.0.1",),
                push=(PushConfig("live", "http://127.0.0.1:9/whip/x", secret["push"]),),
            ),
            sources=SourcesConfig(("127.0.0.1",), daydream_key=secret["key"]),
        )
    )
    seen: list[str] = []

    async def ask(method: str, path: str, token: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        answer = await http.request(method, path, headers=headers, **options)
        seen.append(f"{answer.headers} {answer.text}")
        return answer

    source = {"kind": "whep", "url": "http://127.0.0.1:9/whep", "token": secret["source"]}
    offers = {"content": await make_offer("publish"), "headers": SDP}
    answer = await ask("POST", "/whip/live", secret["publish"], **offers)
    assert answer.status_code == 201
    assert (await ask("GET", f"/api/v1{answer.headers['location']}", secret["publish"])).is_success
    assert (await ask("DELETE", answer.headers["location"], secret["publish"])).is_success
    made = await ask(
        "POST", "/api/v1/streams", secret["control"], json={"name": "a", "source": source}
    )
    assert made.status_code == 201
    link = {"right": "view", "ttl_s": 60}
    assert (await ask("POST", "/api/v1/streams/a/links", secret["control"], json=link)).is_success
    for path in ("streams", "streams/a", "streams/a/source", "streams/a/outputs", "backends"):
        assert (await ask("GET", f"/api/v1/{path}", secret["control"])).is_success
    for path in ("/metrics", "/healthz", "/readyz", "/openapi.json", "/"):
        await ask("GET", path, secret["control"])
    # Tokens at the wrong door, and one that somebody has pasted where it does not belong.
    wrong = (
        asking
        for token in (*secret.values(), GUESS)
        for asking in (
            ask("POST", "/whep/live", token, **offers),
            ask("PATCH", "/api/v1/streams/a", token, json={"idle": 5}),
        )
    )
    await asyncio.gather(*wrong)  # each waits for a while
    told = "\n".join([*seen, caplog.text])
    assert not [name for name, canary in {**secret, "guess": GUESS}.items() if canary in told]


async def test_metrics_name_no_stream(call: Callable[..., Any]) -> None:
    """They are open to all; whoever may see one stream must not learn of the others."""
    http = await call(light())
    service = http._transport.app.state.service
    publisher = FakePublisher()
    publishing = service.tasks.create_task(service.router.publish("canary-stream", publisher))
    await until(lambda: service.router.streams(), "the stream")
    text = (await http.get("/metrics")).text
    assert "streamlift_" in text
    assert "canary-stream" not in text
    assert "canary-stream" in (await http.get("/api/v1/streams")).text
    publisher.end()
    await publishing
