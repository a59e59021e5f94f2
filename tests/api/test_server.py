"""The HTTP server's deadlines and bounds, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.serving import Served, light, serving, until
from uvicorn.protocols.http.h11_impl import H11Protocol

from streamlift.config import AuthConfig, LimitsConfig, ServerConfig

QUICK = LimitsConfig(head_s=1.0, body_s=1.0, connections=8)
HOST = b"Host: 127.0.0.1\r\n"


@pytest.fixture
async def quick() -> AsyncIterator[Served]:
    """A service with short deadlines and few connections."""
    async with serving(light(limits=QUICK)) as served:
        yield served


@contextlib.asynccontextmanager
async def connected(
    served: Served, source: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    where = urlsplit(served.url)
    reader, writer = await asyncio.open_connection(
        where.hostname, where.port, local_addr=(source, 0)
    )
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


SILENT = {
    "nothing": b"",
    "half a line": b"GET /hea",
    "half a head": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: a",
    "a whole request, then half a head": b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\nGET /",
    "half a body that is not read": b"DELETE /api/v1/streams/x HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 9\r\n\r\n{",
    "half a JSON body": b"PATCH /api/v1/streams/x HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n{",
    "half an SDP": b"POST /whip/x HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: application/sdp\r\nContent-Length: 3000\r\n\r\nv=0\r\n",
    "a chunk that does not end": b"PATCH /api/v1/streams/x HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
}


@pytest.mark.parametrize("sent", SILENT.values(), ids=SILENT)
async def test_who_does_not_go_on_is_let_go(quick: Served, sent: bytes) -> None:
    async with connected(quick) as (reader, writer), asyncio.timeout(15):
        writer.write(sent)
        await reader.read()  # returns when the service has closed


@pytest.mark.parametrize("start", [b"GET /", b"PATCH /api/v1/streams/x HTTP/1.1\r\n" + HOST])
async def test_a_byte_now_and_then_buys_no_time(quick: Served, start: bytes) -> None:
    async with connected(quick) as (reader, writer), asyncio.timeout(15):
        reading = asyncio.create_task(reader.read())
        writer.write(start)
        while not reading.done():
            with contextlib.suppress(ConnectionError):
                writer.write(b"a")
            await asyncio.wait([reading], timeout=0.1)


async def test_a_body_that_comes_too_slowly_is_408(quick: Served) -> None:
    async with connected(quick) as (reader, writer), asyncio.timeout(15):
        writer.write(SILENT["half a JSON body"])
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
    assert b"within 1 s" in answer


@pytest.mark.parametrize("header", [b"X: " + 20_000 * b"a", 2_000 * b"X: aaaaaa\r\n"])
async def test_a_head_larger_than_16_kib_is_refused(quick: Served, header: bytes) -> None:
    async with connected(quick) as (reader, writer), asyncio.timeout(15):
        writer.write(b"GET /healthz HTTP/1.1\r\n" + HOST + header)
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")


async def test_idle_connections_keep_nobody_out(quick: Served) -> None:
    async with contextlib.AsyncExitStack() as stack, quick.http() as http:
        assert (await http.get("/healthz")).status_code == 200
        for _ in range(5 * QUICK.connections):
            await stack.enter_async_context(connected(quick, "127.0.0.2"))
            assert (await http.get("/healthz")).status_code == 200


async def test_connections_in_the_midst_of_a_request_are_not_ended_for_newcomers(
    quick: Served,
) -> None:
    events = "/api/v1/events"
    async with contextlib.AsyncExitStack() as stack, quick.http() as http:
        for _ in range(QUICK.connections):
            await stack.enter_async_context(http.stream("GET", events))
        async with quick.http() as late:
            answer = await late.get("/healthz")
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
    async with quick.http() as again:

        async def healthy() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await again.get("/healthz")).status_code == 200
            return False

        await until(healthy, "a place to be free")


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00"], ids=["nothing", "half a hello"])
async def test_who_does_not_agree_on_tls_is_let_go(
    certificate: tuple[Path, Path], sent: bytes
) -> None:
    cert, key = map(str, certificate)
    config = light(server=ServerConfig(tls_cert=cert, tls_key=key), limits=QUICK)
    async with serving(config, tls=True) as served:
        async with connected(served) as (reader, writer), asyncio.timeout(15):
            writer.write(sent)
            with contextlib.suppress(ConnectionError):
                await reader.read()
        async with served.http(verify=False) as http:
            assert (await http.get("/healthz")).status_code == 200


async def test_who_does_not_read_what_it_asked_for_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streamlift.api.server._UNREAD_S", 0.5)
    async with serving() as served, connected(served) as (_, writer):
        # More than both sides' buffers hold; this reader stops at its own bound.
        for _ in range(200):
            writer.write(b"GET /static/app.js HTTP/1.1\r\n" + HOST + b"\r\n")
        await until(
            lambda: len(served.listener.places) == 0, "the connection to be ended", timeout_s=30
        )


async def test_bad_requests_do_not_fill_the_log(
    quick: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(30):
        async with connected(quick) as (reader, writer):
            writer.write(b"\x00\x01\x02\r\n\r\n")
            await reader.read()
    assert len([r for r in caplog.records if r.name.startswith("uvicorn")]) <= 2


@pytest.mark.parametrize("path", [b"POST /whip/x", b"PATCH /api/v1/streams/x"])
async def test_who_goes_away_amid_a_body_leaves_nothing_in_the_log(
    quick: Served, caplog: pytest.LogCaptureFixture, path: bytes
) -> None:
    kind = b"application/sdp" if b"whip" in path else b"application/json"
    head = path + b" HTTP/1.1\r\n" + HOST + b"Content-Type: " + kind
    bodies = (
        b"\r\nContent-Length: 99\r\n\r\n{",
        b"\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
        b"\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nabc",
        b"\r\nTransfer-Encoding: chunked\r\n\r\n1;" + 100_000 * b"a",
    )
    for body in bodies:
        async with connected(quick) as (_, writer):
            writer.write(head + body)
            await writer.drain()
            await asyncio.sleep(0.05)
    await until(lambda: len(quick.listener.places) == 0, "all to be gone")
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_a_body_of_the_smallest_chunks_is_taken_a_piece_at_a_time(
    quick: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each chunk is an event of its own; between two pieces all others have their turn."""
    pieces: list[int] = []
    stock = H11Protocol.data_received

    def noted(self: H11Protocol, data: bytes) -> None:
        pieces.append(len(data))
        stock(self, data)

    monkeypatch.setattr(H11Protocol, "data_received", noted)
    head = b"POST /whip/x HTTP/1.1\r\n" + HOST + b"Content-Type: application/sdp\r\n"
    # The second is too long, or on a busy machine too late.
    for count, wanted in ((3_000, {b"400"}), (40_000, {b"413", b"408"})):
        async with connected(quick) as (reader, writer):
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
            writer.write(count * b"1\r\na\r\n" + b"0\r\n\r\n")
            async with asyncio.timeout(20):
                assert (await reader.readline()).split()[1] in wanted
    assert len(pieces) > 4
    assert max(pieces) <= 4096


async def test_a_stranger_without_a_token_is_answered_before_its_body_comes() -> None:
    auth = AuthConfig(publish=("p",), view=("v",), control=("c",))
    async with serving(light(auth=auth)) as served, connected(served) as (reader, writer):
        for path in (b"PATCH /api/v1/streams/x", b"POST /whip/x", b"POST /api/v1/streams"):
            writer.write(path + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n")
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    line for line in head.split(b"\r\n") if line.startswith(b"content-length")
                )
                await reader.readexactly(int(length.split(b":")[1]))
            assert head.startswith(b"HTTP/1.1 401 ")
            writer.write(b"{}")
