"""Host and Origin checks, CORS, and headers on every response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from tests.serving import light

from streamlift.api.patience import MAX_BODY_BYTES
from streamlift.config import ServerConfig


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "10.0.0.1", ""])
async def test_a_foreign_host_name_is_refused(http: httpx.AsyncClient, host: str) -> None:
    answer = await http.get("/healthz", headers={"Host": host})
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:streamlift:problem:host-not-allowed"


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "a.localhost"])
async def test_names_of_this_machine_are_served(http: httpx.AsyncClient, host: str) -> None:
    assert (await http.get("/healthz", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:9999", "https://127.0.0.1:8080", "null"]
)
async def test_another_page_may_not_drive_the_service(http: httpx.AsyncClient, origin: str) -> None:
    answer = await http.delete("/api/v1/streams/live", headers={"Origin": origin})
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:streamlift:problem:origin-not-allowed"
    assert "access-control-allow-origin" not in answer.headers


async def test_our_own_page_may(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/v1/streams", headers={"Origin": "http://127.0.0.1:8080"})
    assert answer.status_code == 200


async def test_a_listed_origin_may(call: Callable[..., Any]) -> None:
    origin = "https://studio.example"
    http = await call(light(server=ServerConfig(allowed_origins=(origin,))))
    answer = await http.get("/api/v1/streams", headers={"Origin": origin})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert "Origin" in answer.headers["vary"]


async def test_a_preflight_is_answered_without_a_token(call: Callable[..., Any]) -> None:
    origin = "https://studio.example"
    http = await call(light(server=ServerConfig(allowed_origins=(origin,))))
    answer = await http.options(
        "/whip/live",
        headers={"Origin": origin, "Access-Control-Request-Method": "POST"},
    )
    assert answer.status_code == 204
    assert {"POST", "DELETE", "PATCH"} <= _listed(answer, "access-control-allow-methods")
    assert {"Authorization", "Content-Type"} <= _listed(answer, "access-control-allow-headers")


async def test_location_and_retry_after_are_readable_by_pages_on_errors_too(
    http: httpx.AsyncClient,
) -> None:
    answer = await http.get("/api/v1/streams/none", headers={"Origin": "http://127.0.0.1:8080"})
    assert answer.status_code == 404
    assert {"Location", "Retry-After"} <= _listed(answer, "access-control-expose-headers")


async def test_every_response_has_the_security_headers(http: httpx.AsyncClient) -> None:
    for path in ("/", "/healthz", "/nothing-here"):
        headers = (await http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        policy = dict(
            part.strip().partition(" ")[::2]
            for part in headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        # These do not fall back to default-src (CSP 3 section 6).
        assert {"base-uri", "form-action", "frame-ancestors"} <= set(policy)
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"]


async def test_the_page_and_its_parts_are_served(http: httpx.AsyncClient) -> None:
    page = await http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["cache-control"] == "no-cache"
    assert (await http.get("/static/app.js")).status_code == 200


@pytest.mark.parametrize("path", ["/static/../config.py", "/static/%2e%2e/config.py"])
async def test_nothing_outside_the_page_is_served(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code in (400, 404)


async def test_the_api_documents_itself(http: httpx.AsyncClient) -> None:
    assert (await http.get("/docs")).status_code == 200
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert {"/whip/{stream}", "/whep/{stream}", "/api/v1/streams"} <= set(paths)


def _listed(answer: httpx.Response, header: str) -> set[str]:
    return {part.strip() for part in answer.headers[header].split(",")}


@pytest.mark.parametrize("host", ["[", "[::1", "[evil.example]"])
async def test_a_host_that_is_none_is_refused_like_a_foreign_one(
    http: httpx.AsyncClient, host: str
) -> None:
    answer = await http.get("/healthz", headers={"Host": host})
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:streamlift:problem:host-not-allowed"


async def test_a_body_without_end_is_refused_before_it_is_kept(http: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"backend": "'
        while sent < 64:
            sent += 1
            yield b"a" * 16 * 1024

    answer = await http.put("/api/v1/streams/live/backend", content=endless())
    assert answer.status_code == 413
    assert answer.json()["expected"] == f"at most {MAX_BODY_BYTES} bytes"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:streamlift:problem:request-body-too-large"
    assert sent < 8
