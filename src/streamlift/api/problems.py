"""Errors as `application/problem+json` (RFC 9457), and the table from error type to status."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from streamlift import errors
from streamlift.api.forwarded import path_within

__all__ = ["BodyTooLarge", "BodyTooSlow", "Problem", "install_problems", "problem_response"]

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

# The first type that fits, from special to general: status, title, and when to come back.
_STATUS: tuple[tuple[type[errors.StreamliftError], int, str, str | None], ...] = (
    (errors.MalformedSdp, 400, "Malformed SDP", None),
    (errors.IceRestart, 422, "ICE restart not supported", None),
    (errors.MediaError, 422, "Media not supported", None),
    (errors.UnknownStream, 404, "No such stream", None),
    (errors.UnknownSession, 404, "No such session", None),
    (errors.UnknownOutput, 404, "No such output", None),
    (errors.NothingPublished, 409, "Nothing is published", "1"),
    (errors.NoSource, 409, "No source picture", "1"),
    (errors.NoPicture, 503, "No picture", "2"),
    (errors.NoParameters, 409, "No parameters", None),
    (errors.StreamTaken, 409, "Stream already has a publisher", None),
    (errors.UnknownBackend, 422, "No such backend", None),
    (errors.NotReady, 409, "Backend not ready", None),
    (errors.ShuttingDown, 503, "Shutting down", "5"),
    (errors.NoCapacity, 503, "No capacity", "5"),
    (errors.Overloaded, 503, "Overloaded", "5"),
    (errors.TooMany, 429, "Too many", "2"),
    (errors.NoWeights, 422, "No weights to fetch", None),
    (errors.TurnedOff, 403, "Turned off", None),
    (errors.Busy, 409, "Busy", "5"),
    (errors.NothingUnderWay, 404, "Nothing under way", None),
    (errors.TooLarge, 413, "File too large", None),
    (errors.UnknownFile, 404, "No such file", None),
    (errors.NoRoom, 507, "No room", None),
    (errors.ConfigError, 422, "Not allowed", None),
    (errors.StreamliftError, 500, "Failed", None),
)
_WORDS = {
    "model_attributes_type": "Input should be a JSON object",
    "model_type": "Input should be a JSON object",
    "dict_type": "Input should be a JSON object",
    "list_type": "Input should be a JSON array",
    "none_required": "Input should be null",
}
"""Where pydantic speaks of Python's types."""
_MOST_CHARACTERS = 1000
_DEEPEST = 8
"""Of what is shown as found: a caller needs to recognise it, not to get it all back."""


class Problem(Exception):
    """A refusal that the HTTP layer itself decides on."""

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str,
        *,
        found: object = None,
        expected: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.title = title
        self.detail = detail
        self.found = found
        self.expected = expected
        self.headers = dict(headers or {})


def problem_response(problem: Problem) -> JSONResponse:
    """Problem details (RFC 9457): type, title, status, detail, and what was found and expected."""
    body: dict[str, Any] = {
        "type": f"urn:streamlift:problem:{problem.slug}",
        "title": problem.title,
        "status": problem.status,
        "detail": _text(problem.detail),
    }
    if problem.found is not None:
        body["found"] = _plain(problem.found)
    if problem.expected is not None:
        body["expected"] = _plain(problem.expected)
    return JSONResponse(
        body, status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE
    )


class BodyTooLarge(HTTPException):
    """413 with the sizes in bytes. No Problem: FastAPI, while it reads a body, lets only an
    HTTPException through and makes 400 of all else."""

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(413, "Request body too large")
        self.found = f"{found} bytes or more"
        self.expected = f"at most {expected} bytes"


class BodyTooSlow(HTTPException):
    """408: the body did not come in time. The connection ends: what comes later is no request."""

    def __init__(self, allowed_s: float) -> None:
        super().__init__(408, "Request body too slow", {"Connection": "close"})
        self.found = "a body that is not complete"
        self.expected = f"all of it within {allowed_s:g} s"


def install_problems(app: FastAPI) -> None:
    """Map every error a handler may raise to a problem body."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(errors.StreamliftError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_departure)
    app.add_exception_handler(Exception, _on_unforeseen)


async def _on_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return problem_response(error)


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.StreamliftError)
    status, title, retry_s = next(row[1:] for row in _STATUS if isinstance(error, row[0]))
    headers = {} if retry_s is None else {"Retry-After": retry_s}
    return problem_response(
        Problem(
            status,
            _slug(type(error).__name__),
            title,
            str(error),
            found=error.found,
            expected=error.expected,
            headers=headers,
        )
    )


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    said = _WORDS.get(first["type"], str(first["msg"]).removeprefix("Value error, "))
    return problem_response(
        Problem(
            422,
            "invalid-request",
            "Invalid request",
            f"{where}: {said}",
            found=first.get("input"),
            expected=first.get("ctx"),
        )
    )


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    title = str(error.detail)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods_of(request)) or headers.get("Allow", "GET")
    return problem_response(
        Problem(
            error.status_code,
            _slug(title.title().replace(" ", "")),
            title,
            f"{request.method} {request.url.path}: {title}",
            found=getattr(error, "found", None),
            expected=getattr(error, "expected", None),
            headers=headers,
        )
    )


async def _on_departure(request: Request, error: Exception) -> JSONResponse:
    """The peer went away amid its body: nobody reads this, and it is no fault to be logged."""
    return problem_response(Problem(400, "incomplete-body", "Incomplete body", "the body ended"))


async def _on_unforeseen(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem_response(
        Problem(500, "internal", "Internal error", "the log has the details; please report it")
    )


def _methods_of(request: Request) -> list[str]:
    """All documented methods of an address; Starlette would name those of one route only."""
    methods: set[str] = set()
    for path, operations in request.app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", path), path_within(request.scope)):
            methods.update(method.upper() for method in operations)
    return sorted(methods)


def _slug(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def _plain(value: object, room: int = _DEEPEST) -> object:
    """Only what JSON can carry; anything else as text."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # Python reads NaN, JSON has none
    if room == 0:
        return "..."
    if isinstance(value, Mapping):
        return {_text(str(k)): _plain(v, room - 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v, room - 1) for v in value]
    if isinstance(value, bytes):
        return _text(value.decode("ascii", "backslashreplace"))
    return _text(str(value)) if type(value).__str__ is not object.__str__ else "not shown"


def _text(text: str) -> str:
    """Text that UTF-8 can carry: JSON may name half of a surrogate pair (RFC 8259 section 8.2)."""
    if len(text) > _MOST_CHARACTERS:
        text = text[:_MOST_CHARACTERS] + "..."
    return text.encode("utf-8", "replace").decode("utf-8")
