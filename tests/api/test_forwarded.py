"""Behind a reverse proxy: under a path, with TLS, and with clients of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.api.conftest import client_of
from tests.peers import SDP, make_offer
from tests.serving import light

from streamlift.api.forwarded import is_prefix
from streamlift.app import create_app
from streamlift.config import AuthConfig, ServerConfig

TOKENS = AuthConfig(("p",), ("v",), ("c",))
PUBLISH = SDP | {"Authorization": "Bearer p"}
PREFIXED = {"X-Forwarded-Prefix": "/lift"}


async def published(http: httpx.AsyncClient, path: str, **headers: str) -> httpx.Response:
    offer = await make_offer("send")
    answer = await http.post(path, content=offer, headers={**PUBLISH, **headers})
    assert answer.status_code == 201, answer.text
    return answer


async def test_a_client_of_a_proxy_reaches_its_session_by_location(
    call: Callable[..., Any],
) -> None:
    http = await call(light(auth=TOKENS))
    answer = await published(
        http, "/whip/live", **PREFIXED, **{"X-Forwarded-Proto": "https", "Host": "video.example"}
    )
    place = answer.headers["location"]
    assert place.startswith("/lift/sessions/")
    assert answer.headers["livepeer-playback-url"] == "https://video.example/lift/whep/live"
    inside = place.removeprefix("/lift")  # what the proxy passes on
    assert (await http.delete(inside, headers=PUBLISH | PREFIXED)).status_code == 200


@pytest.mark.parametrize("passed_on", ["/whip/live", "/lift/whip/live"])
async def test_a_root_path_holds_whether_the_proxy_strips_it_or_not(
    call: Callable[..., Any], passed_on: str
) -> None:
    server = ServerConfig(root_path="/lift")
    http = await call(light(auth=TOKENS, server=server))
    answer = await published(http, passed_on, **{"X-Forwarded-Prefix": "/another"})
    assert answer.headers["location"].startswith("/lift/sessions/")
    assert (await http.delete(answer.headers["location"], headers=PUBLISH)).status_code == 200


async def test_other_addresses_bear_the_prefix_too(call: Callable[..., Any]) -> None:
    auth = AuthConfig(("p",), ("v",), ("c",), link_secret="north" * 8)
    http = await call(light(auth=auth))
    control = {"Authorization": "Bearer c", **PREFIXED, "Host": "video.example"}
    link = await http.post("/api/v1/streams/a/links", json={"right": "view"}, headers=control)
    assert link.json()["url"].startswith("http://video.example/lift/?stream=a#view=")
    redirect = await http.get("/api/v1/streams/", headers=control)
    assert redirect.headers["location"] == "http://video.example/lift/api/v1/streams"
    wrong = await http.put("/whip/live", headers=PREFIXED)
    assert "POST" in wrong.headers["allow"]
    assert (await http.get("/static/app.js", headers=PREFIXED)).status_code == 200
    assert (await http.get("/", headers=PREFIXED)).status_code == 200
    preflight = await http.options(
        "/whip/live",
        headers={
            **PREFIXED,
            "Origin": "https://video.example",
            "Access-Control-Request-Method": "POST",
        },
    )
    assert preflight.headers["accept-post"] == "application/sdp"


async def test_prefixes_of_some_clients_are_not_shown_to_others(call: Callable[..., Any]) -> None:
    http = await call()
    for number in range(5):
        await http.get("/openapi.json", headers={"X-Forwarded-Prefix": f"/p{number}"})
    assert "/p1" not in (await http.get("/openapi.json")).text


@pytest.mark.parametrize(
    "prefix",
    [
        "lift",
        "//evil.example",
        "/lift/",
        "/",
        "/a b",
        "/lift\\..",
        "/../..",
        "/.",
        "/lift?x=1",
        "/lift#x",
        "https://evil.example/",
        9 * "/a",
        "/%2e%2e",
        "",
    ],
)
async def test_a_prefix_that_is_no_plain_path_is_ignored(
    call: Callable[..., Any], prefix: str
) -> None:
    assert not is_prefix(prefix)
    http = await call(light(auth=TOKENS))
    answer = await published(http, "/whip/live", **{"X-Forwarded-Prefix": prefix})
    assert answer.headers["location"].startswith("/sessions/")


async def test_what_strangers_tell_is_not_read(call: Callable[..., Any]) -> None:
    server = ServerConfig(trusted_proxies=("10.0.0.0/8",))
    http = await call(light(auth=TOKENS, server=server))  # its peer is 127.0.0.1
    answer = await published(
        http, "/whip/live", **PREFIXED, **{"X-Forwarded-Proto": "https", "Host": "video.example"}
    )
    assert answer.headers["location"].startswith("/sessions/")
    assert answer.headers["livepeer-playback-url"] == "http://video.example/whep/live"


@pytest.mark.parametrize(
    ("told", "whose"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9:4711"], "203.0.113.9"),
        (["[2001:db8::1]:4711"], "2001:db8::/64"),
        (["2001:db8::1"], "2001:db8::/64"),
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),  # the first wrote what it liked
        (["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, 127.0.0.1"], "203.0.113.9"),  # two proxies of ours
        (["127.0.0.1"], "127.0.0.1"),
        (["203.0.113.9, unknown"], "127.0.0.1"),
        (["unknown"], "127.0.0.1"),
        ([""], "127.0.0.1"),
        ([], "127.0.0.1"),
    ],
)
async def test_limits_count_for_the_client_of_the_proxy(told: list[str], whose: str) -> None:
    app = create_app(light(auth=TOKENS))
    async with app.router.lifespan_context(app), client_of(app) as http:
        headers = [*PUBLISH.items(), *(("X-Forwarded-For", text) for text in told)]
        offer = await make_offer("send")
        answer = await http.post("/whip/live", content=offer, headers=headers)
        assert answer.status_code == 201
        (session,) = app.state.service.sessions
        assert session.caller.address == whose
