"""Who may do what: the table of tokens, scopes and doors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from tests.serving import light, serving, until

from streamlift.api import check_exposure
from streamlift.api.exposure import is_loopback
from streamlift.api.patience import MAX_BODY_BYTES
from streamlift.api.rights import GuardedRoute, Right
from streamlift.app import create_app
from streamlift.config import AuthConfig, Config, LimitsConfig, ServerConfig, TokenConfig
from streamlift.errors import ConfigError

TOKENS = AuthConfig(publish=("pub-1", "pub-2"), view=("view-1",), control=("ctl-1",))
SDP = {"Content-Type": "application/sdp"}

# Past the door the body is looked at: "not sdp" gives 400 there, so 400 means "let in".
DOORS = [
    ("POST", "/whip/live", "publish", 400),
    ("POST", "/whep/live", "view", 400),
    ("GET", "/api/v1/streams", "view", 200),
    ("GET", "/api/v1/streams", "control", 200),
    ("GET", "/api/v1/streams/live", "view", 404),
    ("GET", "/api/v1/backends", "control", 200),
    ("GET", "/api/v1/streams/live/snapshot.jpg", "view", 404),
    ("DELETE", "/api/v1/streams/live", "control", 404),
]
TOKEN_OF = {"publish": "pub-2", "view": "view-1", "control": "ctl-1"}


@pytest.fixture
async def guarded(call: Callable[..., Any]) -> httpx.AsyncClient:
    client: httpx.AsyncClient = await call(light(auth=TOKENS))
    return client


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Wrong tokens wait no time; the list tells how long they would have waited."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("streamlift.api.rights.sleep", sleep)
    return waited


@pytest.mark.parametrize(("method", "path", "scope", "inside"), DOORS)
async def test_the_right_token_opens_the_door(
    guarded: httpx.AsyncClient, method: str, path: str, scope: str, inside: int
) -> None:
    answer = await _ask(guarded, method, path, f"Bearer {TOKEN_OF[scope]}")
    assert answer.status_code == inside


@pytest.mark.parametrize(("method", "path", "scope", "inside"), DOORS)
async def test_no_token_is_401_with_a_challenge(
    guarded: httpx.AsyncClient, method: str, path: str, scope: str, inside: int
) -> None:
    answer = await _ask(guarded, method, path, None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["type"] == "urn:streamlift:problem:token-missing"


@pytest.mark.usefixtures("no_delay")
@pytest.mark.parametrize("given", ["Bearer wrong", "bearer wrong", "Bearer pub-1x", "Bearer é"])
async def test_a_token_nobody_knows_is_401(guarded: httpx.AsyncClient, given: str) -> None:
    answer = await _ask(guarded, "POST", "/whip/live", given.encode())
    assert answer.status_code == 401
    assert "invalid_token" in answer.headers["www-authenticate"]


@pytest.mark.parametrize("given", ["Basic cHViLTE6", "Bearer", "Bearer ", "pub-1", ""])
async def test_what_is_no_bearer_token_is_401(guarded: httpx.AsyncClient, given: str) -> None:
    answer = await _ask(guarded, "POST", "/whip/live", given)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "wrong"),
    [
        ("POST", "/whip/live", "view"),
        ("POST", "/whip/live", "control"),
        ("POST", "/whep/live", "publish"),
        ("GET", "/api/v1/streams", "publish"),
        ("DELETE", "/api/v1/streams/live", "view"),
    ],
)
async def test_a_token_of_another_door_is_403(
    guarded: httpx.AsyncClient, method: str, path: str, wrong: str
) -> None:
    answer = await _ask(guarded, method, path, f"Bearer {TOKEN_OF[wrong]}")
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:streamlift:problem:token-scope"


async def test_health_needs_no_token(guarded: httpx.AsyncClient) -> None:
    assert (await guarded.get("/healthz")).status_code == 200
    assert (await guarded.get("/readyz")).status_code == 200


async def test_with_tokens_any_host_name_and_any_page_may_call(guarded: httpx.AsyncClient) -> None:
    answer = await guarded.get(
        "/api/v1/streams",
        headers={
            "Host": "video.example",
            "Origin": "https://elsewhere.example",
            "Authorization": "Bearer view-1",
        },
    )
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://elsewhere.example"


def test_a_public_address_without_tokens_is_refused_at_start() -> None:
    with pytest.raises(ConfigError, match=r"publish, view, control.*127\.0\.0\.1"):
        check_exposure(Config(server=ServerConfig(host="0.0.0.0")))


def test_a_public_address_with_one_door_open_is_refused_too() -> None:
    auth = AuthConfig(publish=("a",), view=("b",))
    with pytest.raises(ConfigError, match="no token for control"):
        check_exposure(Config(server=ServerConfig(host="0.0.0.0"), auth=auth))


def test_a_public_address_with_all_tokens_is_served() -> None:
    check_exposure(Config(server=ServerConfig(host="0.0.0.0"), auth=TOKENS))


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]"]
)
def test_loopback_names_are_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "", "2130706433"]
)
def test_other_names_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


async def _ask(
    http: httpx.AsyncClient, method: str, path: str, authorization: str | bytes | None
) -> httpx.Response:
    headers: list[tuple[bytes, bytes]] = [(b"Content-Type", b"application/sdp")]
    if authorization is not None:
        value = authorization if isinstance(authorization, bytes) else authorization.encode()
        headers.append((b"Authorization", value))
    body = b"not sdp" if method == "POST" else None
    return await http.request(method, path, content=body, headers=headers)


# What anybody may ask: the page, its parts, its documents, health, and what can be posted where.
OPEN = {
    ("GET", "/"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("MOUNT", "/static"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("OPTIONS", "/whip/{stream}"),
    ("OPTIONS", "/whep/{stream}"),
    ("OPTIONS", "/sessions/{session_id}"),
}


def _routes(router: Any) -> Iterator[tuple[str, str, Any]]:
    """Method, path and route of all that the application answers to, included routers too."""
    for route in router.routes:
        below = getattr(route, "original_router", None)
        if below is not None:
            yield from _routes(below)
            continue
        for method in getattr(route, "methods", None) or {"MOUNT"}:
            if method != "HEAD":  # Starlette's own, beside a GET
                yield method, route.path, route


def test_every_route_declares_its_right_or_is_open_to_all_on_purpose() -> None:
    app = create_app(light())
    found = list(_routes(app))
    documented = {
        (method.upper(), path)
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    }
    assert documented <= {(method, path) for method, path, _ in found}  # the walk sees them all
    for method, path, route in found:
        rights = [d for d in getattr(route, "dependencies", ()) if isinstance(d.dependency, Right)]
        guarded = isinstance(route, GuardedRoute) and len(rights) == 1
        assert guarded != ((method, path) in OPEN), (method, path)


def test_a_guarded_route_without_a_right_cannot_be_built() -> None:
    router = APIRouter(route_class=GuardedRoute)
    with pytest.raises(TypeError, match="/open declares no right"):
        router.add_api_route("/open", lambda: None)


BODIES = (
    b"",
    b"{",
    b"not json",
    b'{"nested": ' + 5000 * b"[" + 5000 * b"]" + b"}",
    b'{"name": "a b", "source": {"kind": "whep"}}',
    b"\xff\xfe",
    b"a" * (MAX_BODY_BYTES + 1),
)


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("content_type", ["application/json", "application/sdp", ""])
async def test_without_a_token_nothing_is_read_of_any_body(
    guarded: httpx.AsyncClient, body: bytes, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    for method, path, _ in _routes(guarded._transport.app):  # type: ignore[attr-defined]
        if (method, path) in OPEN or "{session_id}" in path:
            continue
        # A name that is not allowed would be 422 to those who may ask.
        address = path.replace("{stream}", "a b").replace("{output}", "x") + "?view=none&stream=a b"
        answer = await guarded.request(method, address, content=body, headers=headers)
        assert answer.status_code == 401, (method, path, answer.text)


async def test_who_guesses_is_slowed_and_then_refused_but_a_right_token_is_served_at_once(
    guarded: httpx.AsyncClient, no_delay: list[float]
) -> None:
    codes = []
    for number in range(15):
        answer = await _ask(guarded, "GET", "/api/v1/streams", f"Bearer guess-{number}")
        codes.append(answer.status_code)
    assert codes == 10 * [401] + 5 * [429]
    assert len(no_delay) == 10
    assert min(no_delay) >= 0.5
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["type"] == "urn:streamlift:problem:too-many-wrong-tokens"
    assert (await _ask(guarded, "GET", "/api/v1/streams", "Bearer view-1")).status_code == 200
    assert len(no_delay) == 10


async def test_a_guess_that_waits_holds_up_nobody(
    guarded: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = asyncio.Event()
    monkeypatch.setattr("streamlift.api.rights.sleep", lambda _: waiting.wait())
    guess = asyncio.create_task(_ask(guarded, "GET", "/api/v1/streams", "Bearer guess"))
    for _ in range(3):
        assert (await _ask(guarded, "GET", "/api/v1/streams", "Bearer view-1")).status_code == 200
    assert not guess.done()
    waiting.set()
    assert (await guess).status_code == 401


LIMITED = AuthConfig(
    publish=("p", TokenConfig("limited", ("a",))),
    view=("v", TokenConfig("limited", ("a",))),
    control=("c", TokenConfig("limited", ("a",))),
    link_secret="north" * 8,
)


@pytest.mark.parametrize(
    ("method", "path", "inside"),
    [
        ("POST", "/whip/{}", 400),
        ("POST", "/whep/{}", 400),
        ("GET", "/api/v1/streams/{}", 404),
        ("GET", "/api/v1/streams/{}/snapshot.jpg", 404),
        ("GET", "/api/v1/streams/{}/source", 404),
        ("GET", "/api/v1/streams/{}/outputs", 404),
        ("DELETE", "/api/v1/streams/{}", 404),
        ("DELETE", "/api/v1/streams/{}/links/x", 204),
    ],
)
async def test_a_token_for_one_stream_opens_nothing_of_another(
    call: Callable[..., Any], method: str, path: str, inside: int
) -> None:
    http = await call(light(auth=LIMITED))
    for stream, status in (("a", inside), ("b", 403)):
        answer = await _ask(http, method, path.format(stream), "Bearer limited")
        assert answer.status_code == status, stream


async def test_a_token_for_one_stream_pulls_no_other(call: Callable[..., Any]) -> None:
    http = await call(light(auth=LIMITED))
    body = {"name": "b", "source": {"kind": "whep", "url": "http://127.0.0.1:1/"}}
    bearer = {"Authorization": "Bearer limited"}
    assert (await http.post("/api/v1/streams", json=body, headers=bearer)).status_code == 403
    refused = await http.get("/api/v1/events?stream=b", headers=bearer)
    assert refused.status_code == 403


async def test_a_link_opens_one_stream_and_its_token_is_in_the_fragment(
    call: Callable[..., Any],
) -> None:
    http = await call(light(auth=LIMITED))
    control = {"Authorization": "Bearer c"}
    made = await http.post(
        "/api/v1/streams/a/links", json={"right": "view", "ttl_s": 600}, headers=control
    )
    assert made.status_code == 201
    assert set(made.json()) == {"id", "url", "expires"}
    address, _, fragment = made.json()["url"].partition("#")
    assert address == "http://127.0.0.1:8080/?stream=a"
    right, _, token = fragment.partition("=")
    assert right == "view"
    assert token not in address
    for method, path, status in (
        ("POST", "/whep/a", 400),
        ("POST", "/whep/b", 403),
        ("POST", "/whip/a", 403),
        ("GET", "/api/v1/streams/a", 404),
        ("GET", "/api/v1/streams/b", 403),
        ("DELETE", "/api/v1/streams/a", 403),
        ("POST", "/api/v1/streams/a/links", 403),
    ):
        assert (await _ask(http, method, path, f"Bearer {token}")).status_code == status, path
    gone = await http.delete(f"/api/v1/streams/a/links/{made.json()['id']}", headers=control)
    assert gone.status_code == 204
    ended = await _ask(http, "POST", "/whep/a", f"Bearer {token}")
    assert ended.status_code == 401
    assert ended.json()["type"] == "urn:streamlift:problem:token-expired"


@pytest.mark.parametrize(
    "body",
    [
        {"right": "control", "ttl_s": 600},
        {"right": "view", "ttl_s": 0},
        {"right": "view", "ttl_s": 10**9},
        {"ttl_s": 600},
        {"right": "view", "stream": "b"},
    ],
)
async def test_a_link_for_more_than_links_may_is_refused(
    call: Callable[..., Any], body: dict[str, object]
) -> None:
    http = await call(light(auth=LIMITED))
    control = {"Authorization": "Bearer c"}
    answer = await http.post("/api/v1/streams/a/links", json=body, headers=control)
    assert answer.status_code == 422


async def test_without_a_secret_there_are_no_links(guarded: httpx.AsyncClient) -> None:
    answer = await guarded.post(
        "/api/v1/streams/a/links",
        json={"right": "view"},
        headers={"Authorization": "Bearer ctl-1"},
    )
    assert answer.status_code == 422
    assert "LINK_SECRET" in answer.json()["detail"]


async def test_one_token_follows_the_events_so_many_times(call: Callable[..., Any]) -> None:
    limits = LimitsConfig(events_per_token=2)
    async with serving(light(auth=TOKENS, limits=limits)) as served, served.http() as http:
        bearer = {"Authorization": "Bearer view-1"}
        async with (
            http.stream("GET", "/api/v1/events", headers=bearer) as first,
            http.stream("GET", "/api/v1/events", headers=bearer),
        ):
            assert first.status_code == 200
            assert (await http.get("/api/v1/events", headers=bearer)).status_code == 429
            other = {"Authorization": "Bearer ctl-1"}
            async with http.stream("GET", "/api/v1/events", headers=other) as third:
                assert third.status_code == 200

        async def follows_again() -> bool:
            async with http.stream("GET", "/api/v1/events", headers=bearer) as again:
                return again.status_code == 200

        await until(follows_again, "a place to be free")


@pytest.mark.parametrize(
    ("bearer", "other", "status"),
    [
        ("view-1", None, 403),
        ("view-1", "ctl-1", 400),
        ("view-1", "view-1", 403),
        ("ctl-1", None, 403),
        (None, "ctl-1", 401),
    ],
)
async def test_comparing_backends_needs_the_right_to_view_and_to_control(
    guarded: httpx.AsyncClient, bearer: str | None, other: str | None, status: int
) -> None:
    headers = {**SDP}
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    if other is not None:
        headers["Streamlift-Control"] = other
    answer = await guarded.post("/whep/live?backend=bicubic", content=b"not sdp", headers=headers)
    assert answer.status_code == status, answer.text


async def test_a_token_of_both_doors_may_compare_and_an_open_door_to_view_is_not_enough(
    call: Callable[..., Any],
) -> None:
    both = await call(light(auth=AuthConfig(view=("both",), control=("both",))))
    answer = await both.post(
        "/whep/live?backend=bicubic",
        content=b"not sdp",
        headers={**SDP, "Authorization": "Bearer both"},
    )
    assert answer.status_code == 400
    open_to_view = await call(light(auth=AuthConfig(control=("ctl-1",))))
    answer = await open_to_view.post("/whep/live?backend=bicubic", content=b"x", headers=SDP)
    assert answer.status_code == 401
    answer = await open_to_view.post(
        "/whep/live?backend=bicubic",
        content=b"not sdp",
        headers={**SDP, "Authorization": "Bearer ctl-1"},
    )
    assert answer.status_code == 400
