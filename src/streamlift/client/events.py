"""Following the events of a service, through lost connections and restarts of it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx

from streamlift.client.problems import ApiError, Busy, problem_of
from streamlift.client.reading import UnexpectedAnswer, read
from streamlift.client.shapes import Event
from streamlift.media.remote.backoff import Retry

__all__ = ["follow", "parsed"]

logger = logging.getLogger(__name__)

PATH = "/api/v1/events"
_SILENCE_S = 45.0
"""The service says something every 15 s."""
_MOST_LINE = 1 << 20

Sleep = Callable[[float], Awaitable[None]]


async def follow(
    http: httpx.AsyncClient,
    stream: str | None,
    after: int | None,
    *,
    sleep: Sleep = asyncio.sleep,
) -> AsyncIterator[Event]:
    """Events from now on, or after the one numbered `after`; see `Client.events`."""
    retry = Retry()
    while True:
        asked_s = None
        try:
            async for event in _once(http, stream, after):
                retry.reset()
                after = event.seq
                yield event
            why = "the service ended the connection"
        except Busy as error:
            asked_s, why = error.retry_after_s, str(error)
        except ApiError as error:
            if error.status < 500:
                raise
            why = str(error)
        except httpx.HTTPError as error:
            why = str(error) or "no answer"
        wait_s = retry.wait_s(asked_s)
        logger.info("events: %s; next try in %.0f s", why, wait_s)
        await sleep(wait_s)


async def _once(
    http: httpx.AsyncClient, stream: str | None, after: int | None
) -> AsyncIterator[Event]:
    params = {} if stream is None else {"stream": stream}
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    timeout = httpx.Timeout(10.0, read=_SILENCE_S)
    async with http.stream(
        "GET", PATH, params=params, headers=headers, timeout=timeout
    ) as response:
        if response.is_error:
            await response.aread()
            raise problem_of(response)
        async for event in parsed(lines_of(response.aiter_text())):
            yield event


async def lines_of(text: AsyncIterator[str]) -> AsyncIterator[str]:
    """The lines of a text that comes in pieces. Raises UnexpectedAnswer for one without end."""
    held = ""
    async for piece in text:
        *whole, held = (held + piece).split("\n")
        for line in whole:
            yield line.removesuffix("\r")
        if len(held) > _MOST_LINE:
            raise UnexpectedAnswer("a line is longer than any real one", found=len(held))
    if held:
        yield held


async def parsed(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    """Events of a stream of lines (WHATWG HTML, section 9.2.6). Raises UnexpectedAnswer."""
    kind, data = "", ""
    async for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data += value + "\n"
            if len(data) > _MOST_LINE:
                raise UnexpectedAnswer("an event is larger than any real one", found=len(data))
        elif not line and data:
            try:
                told = json.loads(data)
            except ValueError as error:
                raise UnexpectedAnswer("an event is no JSON", found=data[:80]) from error
            if isinstance(told, dict):
                told = {"kind": kind, **told}
            yield read(Event, told, "the event")
            kind, data = "", ""
        elif not line:
            kind = ""
