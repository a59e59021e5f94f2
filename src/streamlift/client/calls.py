"""How the client calls: one HTTP client, and what is made of answers that are no good."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from streamlift.client.problems import problem_of
from streamlift.client.reading import UnexpectedAnswer, read
from streamlift.errors import reason_of
from streamlift.media.remote.http import Unreachable, open_http

__all__ = ["Calls", "decoded", "part_of"]

T = TypeVar("T")


class Calls:
    """One service; an async context manager."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        token: str | None = None,
        *,
        timeout_s: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`token`: the control token, or one that allows what is asked. `transport`: for tests."""
        self.url = url.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        self._http = open_http(self.url, token, timeout_s, base_url=self.url, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close connections; iterations over events end."""
        await self._http.aclose()

    async def _list(self, shape: type[T], path: str, key: str) -> tuple[T, ...]:
        told = await self._get(path)
        if not isinstance(told, dict) or not isinstance(told.get(key), list):
            raise UnexpectedAnswer(f"{path} has no list", found=told, expected=key)
        return tuple(read(shape, item, f"{key}[{n}]") for n, item in enumerate(told[key]))

    async def _get(self, path: str) -> object:
        return decoded(await self._send("GET", path))

    async def _json(self, method: str, path: str, body: Mapping[str, Any]) -> object:
        return decoded(await self._send(method, path, json=body))

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = await self._answer(method, path, **options)
        if answer.is_error:
            raise problem_of(answer)
        return answer

    async def _answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return await self._http.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(f"cannot reach {self.url}: {reason_of(error)}") from error


def decoded(answer: httpx.Response) -> object:
    """Its JSON. Raises UnexpectedAnswer."""
    try:
        return answer.json()
    except ValueError as error:
        raise UnexpectedAnswer(
            f"{answer.request.url.path} answered without JSON: is that a streamlift service?",
            found=answer.text[:80],
        ) from error


def part_of(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")
