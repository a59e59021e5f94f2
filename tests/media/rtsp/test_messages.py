"""RTSP as text: what is read, what is refused, and how much of it."""

from __future__ import annotations

import asyncio
import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlift.errors import MediaError
from streamlift.media.rtsp.messages import (
    HEAD_BYTES,
    Request,
    Transport,
    password_of,
    read_request,
    read_transport,
    response,
)


async def read(data: bytes) -> Request | None:
    reader = asyncio.StreamReader(limit=HEAD_BYTES)
    reader.feed_data(data)
    reader.feed_eof()
    return await read_request(reader)


async def test_a_request_is_read_after_what_players_send_between() -> None:
    rtcp = b"$\x01\x00\x04abcd"
    data = (
        rtcp + rtcp + b"SETUP rtsp://h:8554/a%2Db/trackID=0 RTSP/1.0\r\nCSeq: 7\r\nX:  y \r\n\r\n"
    )
    request = await read(data)
    assert request is not None
    assert (request.method, request.path, request.cseq) == ("SETUP", "a-b/trackID=0", "7")
    assert request.headers["x"] == "y"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"hello\r\n\r\n",
        b"PLAY rtsp://h/a RTSP/1.0\r\nno header\r\n\r\n",
        b"PLAY rtsp://h/\xff RTSP/1.0\r\n\r\n",
        b"PLAY rtsp://h]/ RTSP/1.0\r\n\r\n",
        b"PLAY rtsp://h/a RTSP/1.0\r\nContent-Length: 99999\r\n\r\n",
        b"PLAY rtsp://h/a RTSP/1.0\r\nContent-Length: -1\r\n\r\n",
        b"PLAY rtsp://h/a RTSP/1.0\r\nX: " + b"y" * HEAD_BYTES + b"\r\n\r\n",
    ],
)
async def test_what_is_no_request_or_too_long_is_refused(data: bytes) -> None:
    with pytest.raises(MediaError):
        await read(data)


@pytest.mark.parametrize("data", [b"", b"PLAY rtsp://h/a RTS", b"$\x00\xff\xffabc"])
async def test_a_connection_that_ends_inside_a_request_has_ended(data: bytes) -> None:
    assert await read(data) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_request_an_end_or_an_error(data: bytes) -> None:
    try:
        request = asyncio.run(read(data))
    except MediaError:
        return
    assert request is None or response(request, 200).startswith(b"RTSP/1.0 200 OK\r\nCSeq: ")


def test_only_numbers_are_repeated_from_a_request() -> None:
    request = Request("PLAY", "", "", {"cseq": "1\r\nX: y"})
    assert b"CSeq: 0\r\n\r\n" in response(request, 200)


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        ("RTP/AVP/TCP;unicast;interleaved=2-3", Transport((2, 3))),
        ("RTP/AVP/TCP;interleaved=4", Transport((4, 5))),
        ("RTP/AVP;unicast;client_port=5000-5001,RTP/AVP/TCP;unicast", Transport(None)),
        ("RTP/AVP;unicast;client_port=5000-5001", None),
        ("RTP/AVP/TCP;interleaved=255-256", None),
        ("RTP/AVP/TCP;interleaved=7-7", None),
        ("", None),
    ],
)
def test_the_first_interleaved_transport_is_taken(offered: str, taken: Transport | None) -> None:
    assert read_transport(offered) == taken


def test_the_password_of_basic_may_hold_colons_and_nothing_else_has_one() -> None:
    coded = base64.b64encode(b"user:a:b").decode()
    assert password_of(f"Basic {coded}") == "a:b"
    assert password_of(f"Digest {coded}") is None
    assert password_of("Basic %%%") is None
    assert password_of("Basic " + base64.b64encode(b"nocolon").decode()) is None
    assert password_of("") is None
