"""Connections to targets: checked addresses, certificates of the right name, an end to waiting."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from streamlift.errors import ConfigError, MediaError
from streamlift.media.remote.http import Unreachable
from streamlift.media.remote.url_safety import HostRules
from streamlift.media.targets.line import open_line

RTMP = ("rtmp", "rtmps")
open_here = partial(open_line, rules=HostRules(["127.0.0.1", "localhost", "example.org"]))


async def elsewhere(host: str, port: int) -> Sequence[str]:
    return ["10.0.0.1"]


async def to_all(host: str, port: int) -> Sequence[str]:
    return ["93.184.215.14"]


async def test_nothing_but_the_schemes_that_are_meant_is_followed() -> None:
    for url in ("http://127.0.0.1/x", "file:///etc/passwd", "rtsp://127.0.0.1/x"):
        with pytest.raises(ConfigError):
            await open_here(url, RTMP)


async def test_a_listed_name_must_not_lead_inside() -> None:
    with pytest.raises(ConfigError, match="not a public address"):
        await open_here("rtmps://example.org/live", RTMP, resolve=elsewhere)


async def test_a_key_does_not_go_in_the_clear_to_a_public_address() -> None:
    with pytest.raises(ConfigError, match="use rtmps"):
        await open_here("rtmp://example.org/live", RTMP, resolve=to_all)


async def test_a_server_that_is_not_there_is_told_as_such() -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
        await open_here("rtmp://127.0.0.1:9/live", RTMP)


async def test_an_encrypted_line_is_to_the_name_of_the_certificate_only(
    certificate: tuple[Path, Path],
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n\n")
        await reader.read()
        writer.close()

    def trust() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(certificate[0]))

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(Unreachable, match="certificate"):
            await open_here(f"rtmps://127.0.0.1:{port}/live", RTMP)
        line = await open_here(f"rtmps://127.0.0.1:{port}/live", RTMP, trust=trust)
        assert await line.read(5) == b"hello"
        await line.aclose()
    finally:
        server.close()


async def test_what_is_read_has_a_bound_and_an_end() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 100_000)
        writer.write_eof()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        line = await open_here(f"rtmp://127.0.0.1:{port}/live", RTMP)
        with pytest.raises(MediaError, match="too long"):
            await line.read_until(b"\r\n\r\n", 8192)
        with pytest.raises(MediaError, match="closed the connection"):
            await line.read(200_000)
        await line.aclose()
    finally:
        server.close()
