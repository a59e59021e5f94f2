"""RTSP 1.0 requests and responses as text (RFC 2326 section 4), with bounds on what is read."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from streamlift.errors import MediaError

__all__ = [
    "HEAD_BYTES",
    "Request",
    "Transport",
    "password_of",
    "read_request",
    "read_transport",
    "response",
]

HEAD_BYTES = 8192
"""Of a request, its line and its headers."""
_BODY_BYTES = 4096
_INTERLEAVED = b"$"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request Entity Too Large",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    459: "Aggregate Operation Not Allowed",
    461: "Unsupported Transport",
    503: "Service Unavailable",
    505: "RTSP Version Not Supported",
}


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is the address's without its leading slash; header names are in lower case."""

    method: str
    url: str
    path: str
    headers: Mapping[str, str]

    @property
    def cseq(self) -> str:
        """The number that the answer repeats; "0" where it is none."""
        number = self.headers.get("cseq", "")
        return number if re.fullmatch(r"\d{1,10}", number) else "0"


@dataclass(frozen=True, slots=True)
class Transport:
    """What a SETUP asks for: the two channels of an interleaved connection, if it names them."""

    channels: tuple[int, int] | None


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request; None at the end of the connection.

    What players send between requests (RTCP on the interleaved channels) is passed over. Raises
    MediaError for what is no RTSP request or too long.
    """
    try:
        first = await reader.readexactly(1)
        while first == _INTERLEAVED:
            header = await reader.readexactly(3)
            await reader.readexactly(int.from_bytes(header[1:], "big"))
            first = await reader.readexactly(1)
        head = first + await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except asyncio.LimitOverrunError as error:
        raise MediaError("the request is too long", expected=f"{HEAD_BYTES} bytes") from error
    if len(head) > HEAD_BYTES:
        raise MediaError("the request is too long", expected=f"{HEAD_BYTES} bytes")
    request = _parse(head)
    await _pass_over_body(reader, request)
    return request


def response(
    request: Request | None, status: int, headers: Mapping[str, str] | None = None, body: str = ""
) -> bytes:
    """An answer. `request` may be None where it could not be read."""
    lines = [f"RTSP/1.0 {status} {_REASONS[status]}"]
    lines.append(f"CSeq: {request.cseq if request is not None else '0'}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body.encode())}")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def read_transport(value: str) -> Transport | None:
    """The first of the transports offered (RFC 2326 section 12.39) that is TCP and interleaved."""
    for offered in value.split(","):
        parts = [part.strip() for part in offered.split(";")]
        if parts[0].upper() != "RTP/AVP/TCP":
            continue
        for part in parts[1:]:
            if found := re.fullmatch(r"interleaved=(\d{1,3})(?:-(\d{1,3}))?", part):
                low = int(found[1])
                high = int(found[2]) if found[2] else low + 1
                if low < 256 and high < 256 and low != high:
                    return Transport((low, high))
                return None
        return Transport(None)
    return None


def password_of(header: str) -> str | None:
    """The password of an `Authorization: Basic` header (RFC 7617); None where there is none."""
    kind, _, coded = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        _, colon, password = base64.b64decode(coded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return password.decode("utf-8", "replace") if colon else None


def _parse(head: bytes) -> Request:
    try:
        lines = head.decode("ascii").split("\r\n")
    except UnicodeDecodeError as error:
        raise MediaError("this is no RTSP request", expected="ASCII") from error
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("RTSP/") or not re.fullmatch("[A-Z_]+", words[0]):
        raise MediaError(
            "this is no RTSP request", found=lines[0][:80], expected="METHOD URL RTSP/1.0"
        )
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if line and not colon:
            raise MediaError("this is no header", found=line[:80], expected="name: value")
        headers[name.strip().lower()] = value.strip()
    try:
        path = unquote(urlsplit(words[1]).path).strip("/")
    except ValueError as error:
        raise MediaError("this is no address", found=words[1][:80]) from error
    return Request(words[0], words[1], path, headers)


async def _pass_over_body(reader: asyncio.StreamReader, request: Request) -> None:
    length = request.headers.get("content-length", "0")
    if not re.fullmatch(r"\d{1,9}", length) or int(length) > _BODY_BYTES:
        raise MediaError("the body is too long", found=length[:20], expected=_BODY_BYTES)
    try:
        await reader.readexactly(int(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return
