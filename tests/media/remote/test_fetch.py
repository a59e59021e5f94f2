"""Requests to other people's servers, against real ones on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp
from tests.media.remote.gateway import Asked, listening, redirector

from streamlift.errors import ConfigError, MediaError
from streamlift.media.remote.fetch import MAX_ANSWER_BYTES, Fetcher
from streamlift.media.remote.http import Unreachable
from streamlift.media.remote.url_safety import HostRules

LOCAL = HostRules(["127.0.0.1"])


async def _mirror(request: Request) -> Response:
    """Tells what came in."""
    return JSONResponse(
        {
            "method": request.method,
            "body": (await request.body()).decode(),
            "host": request.headers["host"],
            "authorization": request.headers.get("authorization"),
            "content_type": request.headers.get("content-type"),
        }
    )


MIRROR: ASGIApp = Starlette(
    routes=[Route("/{path:path}", _mirror, methods=["GET", "POST", "DELETE"])]
)


class Names:
    """A resolver: what each name leads to, one list after the other."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


async def test_a_name_is_resolved_once_and_the_checked_address_is_reached_under_that_name() -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    rules = HostRules(["gateway.test", "127.0.0.1"])
    async with listening(MIRROR) as url, Fetcher(rules, resolve=names) as http:
        port = urlsplit(url).port
        reply = await http.request("GET", f"http://gateway.test:{port}/x")
    assert names.asked == 1
    assert f'"gateway.test:{port}"' in reply.text
    assert reply.url.host == "gateway.test"


async def test_a_name_that_is_rebound_to_loopback_is_not_followed() -> None:
    reached: list[Asked] = []
    rules = HostRules(["gateway.test"])
    async with (
        listening(redirector("http://nowhere.test", 307, reached)) as url,
        Fetcher(rules, resolve=Names(["127.0.0.1"])) as http,
    ):
        with pytest.raises(ConfigError, match="not a public address"):
            await http.request("GET", f"https://gateway.test:{urlsplit(url).port}/")
    assert not reached


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_to_loopback_is_not_followed(status: int) -> None:
    first: list[Asked] = []
    second: list[Asked] = []
    async with (
        listening(redirector("http://x.test", 307, second), host="127.0.0.2") as forbidden,
        listening(redirector(forbidden, status, first)) as url,
        Fetcher(LOCAL) as http,
    ):
        with pytest.raises(ConfigError):
            await http.request("POST", f"{url}/whep", content="offer", token="canary")
    assert len(first) == 1
    assert not second


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_keeps_method_and_body_and_drops_the_token_on_another_origin(
    status: int,
) -> None:
    asked: list[Asked] = []
    async with (
        listening(MIRROR) as other,
        listening(redirector(other, status, asked)) as url,
        Fetcher(LOCAL) as http,
    ):
        reply = await http.request(
            "POST", f"{url}/w", content="offer", content_type="application/sdp", token="canary"
        )
    assert asked[0].headers["authorization"] == "Bearer canary"
    assert '"method":"POST","body":"offer"' in reply.text
    assert '"authorization":null,"content_type":"application/sdp"' in reply.text
    assert str(reply.url) == f"{other}/w"


async def test_a_redirect_within_the_origin_keeps_the_token() -> None:
    async def move(request: Request) -> Response:
        return Response(status_code=307, headers={"Location": "/there"})

    app = Starlette(
        routes=[
            Route("/here", move, methods=["POST"]),
            Route("/there", _mirror, methods=["POST"]),
        ]
    )
    async with listening(app) as url, Fetcher(LOCAL) as http:
        reply = await http.request("POST", f"{url}/here", token="mine")
    assert '"authorization":"Bearer mine"' in reply.text


async def test_redirects_in_a_circle_end() -> None:
    async def again(request: Request) -> Response:
        return Response(status_code=302, headers={"Location": "/"})

    app = Starlette(routes=[Route("/", again)])
    async with listening(app) as url, Fetcher(LOCAL) as http:
        with pytest.raises(MediaError, match="again and again"):
            await http.request("GET", url)


async def test_an_answer_without_end_is_cut_off() -> None:
    async def flood(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 16384
                await asyncio.sleep(0.001)  # let the client have its turn

        return StreamingResponse(chunks())

    async with (
        listening(Starlette(routes=[Route("/", flood)])) as url,
        Fetcher(LOCAL) as http,
    ):
        with pytest.raises(MediaError, match="more than it should"):
            await http.request("GET", url)


async def test_the_largest_answer_allowed_is_read() -> None:
    async def large(request: Request) -> Response:
        return PlainTextResponse("x" * MAX_ANSWER_BYTES)

    async with (
        listening(Starlette(routes=[Route("/", large)])) as url,
        Fetcher(LOCAL) as http,
    ):
        assert len((await http.request("GET", url)).text) == MAX_ANSWER_BYTES


async def test_a_server_that_never_answers_is_given_up() -> None:
    over = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        over.set()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Fetcher(LOCAL, timeout_s=0.2) as http:
        with pytest.raises(Unreachable, match="did not answer"):
            await http.request("GET", f"http://127.0.0.1:{port}/")
        await over.wait()


async def test_nobody_at_that_address_is_unreachable() -> None:
    async with Fetcher(LOCAL) as http:
        with pytest.raises(Unreachable):
            await http.request("GET", "http://127.0.0.1:1/")


async def test_of_several_addresses_the_next_is_tried() -> None:
    rules = HostRules(["gateway.test", "127.0.0.0/8"])
    async with (
        listening(MIRROR) as url,
        Fetcher(rules, resolve=Names(["127.0.0.9", "127.0.0.1"])) as http,
    ):
        reply = await http.request("GET", f"http://gateway.test:{urlsplit(url).port}/")
    assert reply.status == 200
