"""A connection to a target: to the checked address only, encrypted if asked, never waited for."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlsplit

from streamlift.errors import MediaError, reason_of
from streamlift.media.remote.fetch import trusted_authorities
from streamlift.media.remote.http import Unreachable
from streamlift.media.remote.url_safety import HostRules, Resolve, Target, resolve_name

__all__ = ["Line", "OpenLine", "closing", "open_line", "query_of"]

CONNECT_S = 10.0
BUFFER_BYTES = 256 * 1024
"""What may wait in the connection; beyond that pictures are missed up to a keyframe."""
STUCK_S = 10.0
"""A target that takes nothing for as long is left, and tried again."""
READ_BYTES = 64 * 1024
"""What of the other side's may wait to be read."""
_ENCRYPTED = ("rtmps", "rtsps")


class Line:
    """What is read is bounded by its reader; what is written waits, at most for `STUCK_S`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)

    async def read(self, count: int) -> bytes:
        """Raises MediaError when the connection ends before."""
        try:
            return await self._reader.readexactly(count)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise MediaError("the server closed the connection") from error

    async def read_until(self, end: bytes, most: int) -> bytes:
        """Up to and with `end`. Raises MediaError when the connection ends before, or `most` bytes
        come without it."""
        try:
            found = await self._reader.readuntil(end)
        except asyncio.LimitOverrunError as error:
            raise _too_long(most) from error
        except (asyncio.IncompleteReadError, OSError) as error:
            raise MediaError("the server closed the connection") from error
        if len(found) > most:
            raise _too_long(most)
        return found

    async def write(self, data: bytes) -> None:
        """Raises MediaError when the connection has ended, or nothing is taken for `STUCK_S`."""
        if self._writer.is_closing():
            raise MediaError("the server closed the connection")
        self._writer.write(data)
        try:
            async with asyncio.timeout(STUCK_S):
                await self._writer.drain()
        except TimeoutError as error:
            raise MediaError(f"the server takes nothing for {STUCK_S:g} s") from error
        except OSError as error:
            raise MediaError("the server closed the connection") from error

    async def aclose(self) -> None:
        """What was written still goes out, if the other side takes it soon."""
        self._writer.close()
        try:
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()


OpenLine = Callable[[str, Sequence[str]], Awaitable[Line]]
"""From a URL and the schemes that it may have; a partial of `open_line`."""


async def open_line(
    url: str,
    schemes: Sequence[str],
    *,
    rules: HostRules,
    resolve: Resolve = resolve_name,
    trust: Callable[[], ssl.SSLContext] = trusted_authorities,
) -> Line:
    """Connect. Raises ConfigError for an address that is not allowed, or Unreachable.

    The name is resolved once, and of TLS the certificate must be the name's.
    """
    target = rules.check(url, schemes)
    try:
        async with asyncio.timeout(CONNECT_S):
            found = await resolve(target.host, target.port)
            addresses = rules.check_addresses(target, found)
            context = None
            if target.scheme in _ENCRYPTED:
                context = await asyncio.to_thread(trust)
            return await _first_that_answers(target, [str(a) for a in addresses], context)
    except TimeoutError:
        raise Unreachable(f"{target.host} did not answer within {CONNECT_S:g} s") from None
    except OSError as error:
        raise Unreachable(f"cannot reach {target.host}: {_reason(error)}") from error


async def _first_that_answers(
    target: Target, addresses: Sequence[str], context: ssl.SSLContext | None
) -> Line:
    failure: OSError | None = None
    for address in addresses:
        try:
            async with asyncio.timeout(CONNECT_S / len(addresses)):
                return Line(
                    *await asyncio.open_connection(
                        address,
                        target.port,
                        limit=READ_BYTES,
                        ssl=context,
                        server_hostname=target.host if context is not None else None,
                    )
                )
        except OSError as error:  # which a time-out is, too
            failure = error  # another address of the same host may answer
    assert failure is not None  # there is at least one address
    raise failure


@asynccontextmanager
async def closing(line: Line) -> AsyncIterator[Line]:
    """Close it at the end, whatever that is."""
    try:
        yield line
    finally:
        await line.aclose()


def _too_long(most: int) -> MediaError:
    return MediaError("the server's answer is too long", expected=f"at most {most} bytes")


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    # asyncio puts the address into the text of what the system said.
    return os.strerror(error.errno) if error.errno else reason_of(error)


def query_of(url: str) -> list[str]:
    """The query of an address and its values: what may be secret in it."""
    query = urlsplit(url).query
    return [query, *(value for _, value in parse_qsl(query))]
