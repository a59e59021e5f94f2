"""The HTTP half of being a WHIP or WHEP client."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from types import TracebackType
from typing import Self

import httpx

from streamlift.errors import MediaError, Overloaded, StreamError, StreamliftError

__all__ = ["Busy", "Refused", "Signalling", "Unreachable", "open_http"]

_TIMEOUT_S = 10.0
_SDP = "application/sdp"
_FINAL = (400, 401, 403, 405, 406, 410, 413, 415, 422)


class Unreachable(StreamliftError):
    """Nobody answers at that address."""


class Refused(MediaError):
    """The server will not have us, or does not speak this; asking again is of no use."""


class Busy(Overloaded):
    """No room now; `retry_s` is when the server asks to come back, if it says."""

    def __init__(self, message: str, retry_s: float | None) -> None:
        super().__init__(message)
        self.retry_s = retry_s


def open_http(
    url: str,
    token: str | None,
    timeout_s: float = _TIMEOUT_S,
    *,
    base_url: str = "",
    transport: httpx.AsyncBaseTransport | None = None,
) -> httpx.AsyncClient:
    """An HTTP client for the server of `url`; close it. `transport`: for tests."""
    # A service on this machine has a certificate for its public name, or a self-signed one;
    # what never leaves the machine needs neither, but then it may not be sent elsewhere.
    elsewhere = not _is_loopback(url)
    # trust_env off: a proxy meant for the web is no way to a media server on this machine.
    return httpx.AsyncClient(
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=timeout_s,
        verify=elsewhere,
        follow_redirects=elsewhere,
        trust_env=False,
        base_url=base_url,
        transport=transport,
    )


class Signalling:
    """Posts one offer and deletes the session at the end; an async context manager."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url
        self._http = open_http(url, token)
        self._resource: httpx.URL | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._resource is not None:
                await self._http.delete(self._resource)
        except httpx.HTTPError:
            return  # the server is gone; so is the session
        finally:
            await self._http.aclose()

    async def post(self, offer_sdp: str) -> str:
        """Send the offer; returns the answer.

        Raises Unreachable, Busy (503, 429), StreamError (409, 404), Refused where asking again is
        of no use, MediaError otherwise.
        """
        try:
            response = await self._http.post(
                self._url, content=offer_sdp, headers={"Content-Type": _SDP}
            )
        except httpx.InvalidURL as error:
            raise Refused(f"{self._url} is no URL: {error}", found=self._url) from error
        except httpx.HTTPError as error:
            raise Unreachable(f"cannot reach {self._url}: {error}") from error
        if response.status_code not in (200, 201):
            raise _refused(self._url, response)
        if location := response.headers.get("location"):
            # Relative to the address that answered, after redirects.
            self._resource = response.url.join(location)
        return response.text


def _is_loopback(url: str) -> bool:
    try:
        host = httpx.URL(url).host
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except (httpx.InvalidURL, ValueError):
        return False


def _refused(url: str, response: httpx.Response) -> StreamliftError:
    detail = response.text[:200]
    with suppress(ValueError):  # not every server answers in JSON
        problem = response.json()
        if isinstance(problem, dict):
            detail = problem.get("detail") or problem.get("title") or detail
    message = f"{url} answered {response.status_code}: {detail}"
    if response.status_code in (503, 429):
        return Busy(message, _seconds(response.headers.get("retry-after")))
    if response.status_code in (404, 409):
        return StreamError(message)
    if response.status_code in _FINAL:
        return Refused(message)
    return MediaError(message)


def _seconds(text: str | None) -> float | None:
    """Of a Retry-After that gives seconds; the form with a date is not used here in practice."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
