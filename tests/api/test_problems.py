"""Every error is a problem body: the right status, and what was found and expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.api.conftest import client_of

from streamlift import errors
from streamlift.api.problems import install_problems

STATUS = [
    (errors.MalformedSdp, 400, "malformed-sdp"),
    (errors.UnsupportedOffer, 422, "unsupported-offer"),
    (errors.UnsupportedSize, 422, "unsupported-size"),
    (errors.UnknownStream, 404, "unknown-stream"),
    (errors.UnknownSession, 404, "unknown-session"),
    (errors.StreamTaken, 409, "stream-taken"),
    (errors.UnknownBackend, 422, "unknown-backend"),
    (errors.NotReady, 409, "not-ready"),
    (errors.ShuttingDown, 503, "shutting-down"),
    (errors.NoCapacity, 503, "no-capacity"),
    (errors.Overloaded, 503, "overloaded"),
    (errors.WeightsError, 500, "weights-error"),
]


@pytest.mark.parametrize(("kind", "status", "slug"), STATUS)
async def test_each_error_has_its_status_and_slug(
    kind: type[errors.StreamliftError], status: int, slug: str
) -> None:
    answer = await _raised(lambda: _raise(kind("what to do", found=1, expected=[2])))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "found", "expected"}
    assert body["type"] == f"urn:streamlift:problem:{slug}"
    assert (body["status"], body["detail"]) == (status, "what to do")
    assert (body["found"], body["expected"]) == (1, [2])


def test_every_error_of_the_tree_is_in_the_table() -> None:
    kinds = [getattr(errors, name) for name in errors.__all__ if name[0].isupper()]
    assert all(issubclass(kind, errors.StreamliftError) for kind in kinds)


async def test_an_overload_says_when_to_come_back() -> None:
    answer = await _raised(lambda: _raise(errors.Overloaded("full")))
    assert answer.headers["retry-after"] == "5"


async def test_what_json_cannot_carry_is_shown_as_text() -> None:
    odd = {"kinds": {object()}, "size": (1, b"x\xff")}
    answer = await _raised(lambda: _raise(errors.ConfigError("odd", found=odd)))
    assert answer.json()["found"] == {"kinds": ["not shown"], "size": [1, "x\\xff"]}


async def test_a_bug_is_a_500_without_its_inner_workings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = await _raised(lambda: _raise(ZeroDivisionError("secret detail")))
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:streamlift:problem:internal"
    assert "secret" not in answer.text
    assert "secret detail" in caplog.text  # but the log has it


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing-here", 404),
        ("GET", "/api/v1/nothing", 404),
        ("POST", "/api/v1/backends", 405),
        ("PUT", "/whip/live", 405),
        ("GET", "/api/v1/streams/a%20b", 422),
        ("GET", "/api/v1/streams/" + 65 * "a", 422),
        ("GET", "/api/v1/streams/live/snapshot.jpg?view=inside", 422),
        ("GET", "/api/v1/sessions/none", 404),
        ("DELETE", "/sessions/none", 404),
    ],
)
async def test_every_refusal_is_a_problem_body(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["type"].startswith("urn:streamlift:problem:")
    assert body["detail"]


async def test_a_wrong_method_names_the_right_ones(http: httpx.AsyncClient) -> None:
    answer = await http.put("/whip/live")
    assert "POST" in answer.headers["allow"]


async def _raised(handler: Callable[[], None]) -> httpx.Response:
    app = FastAPI()
    install_problems(app)
    app.add_api_route("/", handler)
    async with client_of(app) as http:
        return await http.get("/")


def _raise(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize(
    "body",
    [
        '{"bitrate_bps": NaN}',
        '{"bitrate_bps": Infinity}',
        '{"idle": "\\ud800"}',
        '{"\\ud800": 1}',
        '{"idle": ' + 900 * "[" + 900 * "]" + "}",
    ],
)
async def test_what_python_reads_but_json_cannot_carry_is_refused_in_json(
    http: httpx.AsyncClient, body: str
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await http.patch("/api/v1/streams/live", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:streamlift:problem:invalid-request"


async def test_a_problem_does_not_give_all_of_a_long_value_back(http: httpx.AsyncClient) -> None:
    answer = await http.patch("/api/v1/streams/live", json={"idle": 50_000 * "a"})
    assert answer.status_code == 422
    assert len(answer.content) < 2_000
