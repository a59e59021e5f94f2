"""Events are followed through lost connections, restarts and a full service."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from streamlift.client import Client
from streamlift.client.events import follow, lines_of, parsed
from streamlift.client.problems import NotAllowed
from streamlift.client.reading import UnexpectedAnswer

Handler = Callable[[httpx.Request], httpx.Response]


def line_of(seq: int, kind: str = "fault", **changes: Any) -> str:
    data = {"seq": seq, "time": 1.5, "stream": "a", "from": None, "to": None, "gap_ms": None}
    return f"event: {kind}\nid: {seq}\ndata: {json.dumps({**data, 'reason': '', **changes})}\n\n"


def stream_of(*events: str) -> httpx.Response:
    headers = {"Content-Type": "text/event-stream"}
    return httpx.Response(200, headers=headers, text=": connected\n\n" + "".join(events))


async def lines(text: str) -> AsyncIterator[str]:
    for line in text.splitlines():
        yield line


async def test_comments_and_pieces_of_data_are_read_as_the_standard_says() -> None:
    text = (
        ": hello\n\nevent: switched\nid: 7\nretry: 5\ndata: {"
        '"seq": 7, "time": 1,\ndata: "stream": "a", "from": null, "to": "b",\n'
        'data:"gap_ms": null, "reason": ""}\n\n'
    )
    (event,) = [e async for e in parsed(lines(text))]
    assert (event.kind, event.seq) == ("switched", 7)


async def test_an_event_that_is_no_json_is_said() -> None:
    with pytest.raises(UnexpectedAnswer, match="no JSON"):
        [e async for e in parsed(lines("data: {\n\n"))]


async def test_lines_are_whole_however_they_come_and_have_an_end() -> None:
    async def pieces(*given: str) -> AsyncIterator[str]:
        for piece in given:
            yield piece

    cut = pieces("id: 1\r\nda", "ta: {}", "\n\nlast")
    assert [line async for line in lines_of(cut)] == ["id: 1", "data: {}", "", "last"]
    with pytest.raises(UnexpectedAnswer, match="longer than any real one"):
        [line async for line in lines_of(pieces(*(["x" * 100_000] * 100)))]


async def followed(answers: list[httpx.Response], count: int) -> tuple[list[int], list[Any], list]:  # type: ignore[type-arg]
    """Numbers of the events, what `Last-Event-ID` was sent, and the waits."""
    asked: list[Any] = []
    waits: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        return answers.pop(0)

    async def nap(seconds: float) -> None:
        waits.append(seconds)

    seen: list[int] = []
    async with httpx.AsyncClient(
        base_url="http://a", transport=httpx.MockTransport(answer)
    ) as http:
        async for event in follow(http, None, None, sleep=nap):
            seen.append(event.seq)
            if len(seen) == count:
                break
    return seen, asked, waits


async def test_a_lost_connection_is_made_again_after_the_last_event() -> None:
    answers = [stream_of(line_of(1), line_of(2)), stream_of(line_of(3))]
    seen, asked, waits = await followed(answers, 3)
    assert seen == [1, 2, 3]
    assert asked == [None, "2"]
    assert len(waits) == 1


async def test_a_full_service_is_asked_again_when_it_says() -> None:
    full = httpx.Response(429, headers={"Retry-After": "7"}, json={"detail": "too many"})
    seen, _, waits = await followed([full, httpx.Response(500), stream_of(line_of(5))], 1)
    assert seen == [5]
    assert waits[0] >= 7


async def test_a_refusal_is_raised() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"detail": "this needs a token"})

    async with Client(transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(NotAllowed, match="this needs a token"):
            await anext(client.events())
