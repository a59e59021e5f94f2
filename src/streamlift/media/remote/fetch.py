"""Small HTTP requests to other people's servers: checked addresses, bounded answers and times."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, Self

import httpx

from streamlift.errors import MediaError, reason_of
from streamlift.media.remote.http import Unreachable
from streamlift.media.remote.url_safety import Address, HostRules, Resolve, Target, resolve_name

__all__ = ["Fetcher", "Reply", "trusted_authorities"]

TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 64 * 1024
MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 307, 308)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `url` is the address that gave it, after redirects."""

    status: int
    text: str
    url: httpx.URL
    headers: Mapping[str, str] = field(repr=False)


@cache
def trusted_authorities() -> ssl.SSLContext:
    """The machine's certificate authorities: some tens of milliseconds of reading, done once."""
    return httpx.create_ssl_context(trust_env=False)


class Fetcher:
    """An async context manager. Redirects keep method and body; every hop is checked anew.

    The `Authorization` header goes to the first origin (scheme, host and port) only.
    """

    def __init__(
        self, rules: HostRules, *, resolve: Resolve = resolve_name, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._rules = rules
        self._resolve = resolve
        self._timeout_s = timeout_s
        self._http: httpx.AsyncClient

    async def __aenter__(self) -> Self:
        # trust_env off: a proxy would resolve the name again, past the check.
        self._http = httpx.AsyncClient(
            timeout=self._timeout_s,
            follow_redirects=False,
            trust_env=False,
            verify=await asyncio.to_thread(trusted_authorities),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def request(
        self,
        method: str,
        url: str,
        *,
        content: str | None = None,
        content_type: str | None = None,
        token: str | None = None,
    ) -> Reply:
        """Raises ConfigError for an address that is not allowed, Unreachable, or MediaError for
        an answer that is too large or redirects too often."""
        headers = {"Accept-Encoding": "identity"}
        if content_type is not None:
            headers["Content-Type"] = content_type
        first = self._rules.check(url)
        try:
            here = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise MediaError(f"the address cannot be used: {error}") from error
        try:
            async with asyncio.timeout(self._timeout_s):
                for _ in range(MAX_REDIRECTS + 1):
                    target = self._rules.check(str(here))
                    secret = {"Authorization": f"Bearer {token}"} if token else {}
                    if target.origin != first.origin:
                        secret = {}
                    reply = await self._send(method, here, target, headers | secret, content)
                    location = reply.headers.get("location")
                    if reply.status not in _REDIRECTS or location is None:
                        return reply
                    here = here.join(location)
        except TimeoutError:
            raise Unreachable(f"{here.host} did not answer within {self._timeout_s:g} s") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise MediaError(f"the address cannot be used: {error}") from error
        raise MediaError(f"{here.host} redirects again and again", expected=MAX_REDIRECTS)

    async def _send(
        self,
        method: str,
        url: httpx.URL,
        target: Target,
        headers: Mapping[str, str],
        content: str | None,
    ) -> Reply:
        try:
            found = await self._resolve(target.host, target.port)
        except OSError as error:
            raise Unreachable(f"{target.host} has no address: {error.strerror}") from error
        failure: httpx.HTTPError | None = None
        for address in self._rules.check_addresses(target, found):
            request = self._request(method, url, target, address, headers, content)
            try:
                response = await self._http.send(request, stream=True)
            except httpx.ConnectError as error:
                failure = error  # another address of the same host may answer
                continue
            except httpx.HTTPError as error:
                raise Unreachable(f"cannot reach {target.host}: {_reason(error)}") from error
            return await _read(response, url)
        assert failure is not None  # there is at least one address
        raise Unreachable(f"cannot reach {target.host}: {_reason(failure)}") from failure

    def _request(
        self,
        method: str,
        url: httpx.URL,
        target: Target,
        address: Address,
        headers: Mapping[str, str],
        content: str | None,
    ) -> httpx.Request:
        """To the checked address, under the host's name: in Host, and in TLS (SNI, certificate)."""
        extensions: dict[str, Any] = {"sni_hostname": target.host}
        return self._http.build_request(
            method,
            url.copy_with(host=str(address)),
            headers={"Host": url.netloc.decode("ascii"), **headers},
            content=content,
            extensions=extensions,
        )


async def _read(response: httpx.Response, url: httpx.URL) -> Reply:
    body = b""
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise MediaError(
                    f"{url.host} answers with more than it should",
                    found=f"more than {MAX_ANSWER_BYTES} bytes",
                    expected=f"at most {MAX_ANSWER_BYTES} bytes",
                )
    except httpx.HTTPError as error:
        raise Unreachable(f"{url.host} broke off its answer: {_reason(error)}") from error
    finally:
        await response.aclose()
    text = body.decode("utf-8", errors="replace")
    return Reply(response.status_code, text, url, response.headers)


def _reason(error: httpx.HTTPError) -> str:
    return "no answer in time" if isinstance(error, httpx.TimeoutException) else reason_of(error)
