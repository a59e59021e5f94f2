"""What the service refuses with, as errors (RFC 9457).

ApiError                  .status, .slug (such as "not-ready"), .found, .expected, .retry_after_s
├── NotAllowed            401, 403: no token, or one for something else
├── NotFound              404: no such stream, output or session
├── Conflict              409: not in the state that it is in now
├── Invalid               400, 413, 415, 422: what was asked is wrong
└── Busy                  429, 503: later, see `retry_after_s`
"""

from __future__ import annotations

import httpx

from streamlift.errors import StreamliftError

__all__ = ["ApiError", "Busy", "Conflict", "Invalid", "NotAllowed", "NotFound", "problem_of"]

_PREFIX = "urn:streamlift:problem:"


class ApiError(StreamliftError):
    """The service refused, or failed. Its text is the service's own."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        slug: str = "",
        found: object = None,
        expected: object = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, found=found, expected=expected)
        self.status = status
        self.slug = slug
        self.retry_after_s = retry_after_s


class NotAllowed(ApiError):
    """No token, or one that does not allow this."""


class NotFound(ApiError):
    """No such stream, output or session."""


class Conflict(ApiError):
    """It cannot be done in the state that it is in now."""


class Invalid(ApiError):
    """What was asked is wrong; asking again is of no use."""


class Busy(ApiError):
    """Not now; `retry_after_s` says when, if the service does."""


_KINDS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: Busy,
    503: Busy,
}


def problem_of(response: httpx.Response) -> ApiError:
    """The error that an answer of 400 or more stands for; its body must have been read."""
    try:
        told = response.json()
    except ValueError:
        told = None
    if not isinstance(told, dict):
        told = {"detail": response.text[:200]}
    detail = str(told.get("detail") or told.get("title") or "no reason given")
    after = response.headers.get("retry-after", "")
    return _KINDS.get(response.status_code, ApiError)(
        f"{response.request.method} {response.request.url.path}: {detail}",
        status=response.status_code,
        slug=str(told.get("type", "")).removeprefix(_PREFIX),
        found=told.get("found"),
        expected=told.get("expected"),
        retry_after_s=float(after) if after.isascii() and after.isdigit() else None,
    )
