"""The listening socket of HTTP: a bound on connections, and descriptors that are left for media.

It does what uvicorn and asyncio lack. A connection counts from its first moment, before TLS and
before its first byte. When all places are taken, the connection that waits longest without a
request, of the address that has most, gives its place up; so idle ones keep nobody out. When the
process has no descriptor left, newcomers are turned away with one that was kept for this: asyncio
would log the error thousands of times a second, and do nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections import Counter
from dataclasses import dataclass
from typing import Any

from streamlift.clock import Clock, MonotonicClock
from streamlift.service import address_of

__all__ = ["Listener", "Places", "places_for"]

logger = logging.getLogger(__name__)

_OTHERS = 64
"""Descriptors that the process needs beside connections and media: libraries, files, pipes."""
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Retry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
_SAY_AGAIN_S = 10.0


def places_for(connections: int) -> int:
    """How many connections there may be, `connections` or as many as leave descriptors for media.

    Raises the process's own limit of descriptors as far as it may.
    """
    try:
        import resource
    except ImportError:  # not on Windows
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft == resource.RLIM_INFINITY:
        return connections
    most = max(8, (soft - _OTHERS) // 2)
    if most < connections:
        logger.warning(
            "this process may open %d files: %d connections instead of limits.connections %d",
            soft,
            most,
            connections,
        )
    return min(connections, most)


@dataclass(slots=True, eq=False)
class _Place:
    connection: socket.socket
    address: str
    since_s: float
    known: bool = False
    """Whether the protocol has it; before that TLS may still be agreed on."""
    busy: bool = False
    leaving: bool = False


class Places:
    """Who has which place. Pure but for `shutdown` of a connection that has to go."""

    def __init__(self, most: int, clock: Clock | None = None) -> None:
        self._most = most
        self._clock = clock or MonotonicClock()
        self._places: dict[Any, _Place] = {}

    def __len__(self) -> int:
        return sum(not place.leaving for place in self._places.values())

    def take(self, peer: Any, connection: socket.socket) -> bool:
        """A place for a newcomer; False when there is none and nobody idle who could go."""
        address = address_of(peer[0])
        if len(self) >= self._most:
            leaving = self._longest_idle()
            if leaving is None:
                return False
            _let_go(leaving)
        self._places[peer] = _Place(connection, address, self._clock.now_s())
        return True

    def leave(self, connection: socket.socket) -> None:
        for peer, place in self._places.items():
            if place.connection is connection:
                del self._places[peer]
                return

    def mark(self, peer: Any, *, busy: bool) -> None:
        """Whether a request is in progress on this connection."""
        place = self._places.get(peer)
        if place is None:
            return
        place.known = True
        if place.busy != busy:
            place.busy, place.since_s = busy, self._clock.now_s()

    def expect(self, peer: Any, connection: socket.socket) -> None:
        """Its time to become known is over."""
        place = self._places.get(peer)
        if place is not None and place.connection is connection and not place.known:
            _let_go(place)

    def _longest_idle(self) -> _Place | None:
        idle = [p for p in self._places.values() if not (p.busy or p.leaving)]
        if not idle:
            return None
        count = Counter(p.address for p in self._places.values() if not p.leaving)
        return max(idle, key=lambda p: (count[p.address], -p.since_s))


def _let_go(place: _Place) -> None:
    place.leaving = True
    with contextlib.suppress(OSError):  # it may have gone by itself
        place.connection.shutdown(socket.SHUT_RDWR)


class _Connection(socket.socket):
    """Gives its place back when it is closed, whoever closes it."""

    def __init__(self, places: Places, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._places = places

    def close(self) -> None:
        self._places.leave(self)
        super().close()


class Listener(socket.socket):
    """`accept` never gives more connections than there are places."""

    def __init__(
        self, family: int, places: Places, *, head_s: float = 10.0, tls: bool = False
    ) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._head_s = head_s
        self.places = places
        self._refusal = b"" if tls else _FULL
        self._reserve: int | None = None
        self._said_s = float("-inf")
        self._keep_one()

    def accept(self) -> tuple[socket.socket, Any]:
        while True:
            try:
                plain, peer = super().accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                self._turn_one_away()
                raise BlockingIOError from None  # asyncio comes back when the loop has gone round
            connection = _Connection(
                self.places, self.family, self.type, self.proto, fileno=plain.detach()
            )
            if self.places.take(peer, connection):
                self._expect(peer, connection)
                return connection, peer
            self._say("all places for connections are taken; one is turned away")
            self._refuse(connection)

    def close(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
        super().close()

    def _expect(self, peer: Any, connection: socket.socket) -> None:
        """Agreeing on TLS may take no longer than a head; asyncio would wait a minute."""
        with contextlib.suppress(RuntimeError):  # no loop: nobody agrees on anything
            loop = asyncio.get_running_loop()
            loop.call_later(self._head_s, self.places.expect, peer, connection)

    def _turn_one_away(self) -> None:
        self._say("no file descriptor is left; a connection is turned away")
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
        try:
            connection, _ = super().accept()
        except OSError:
            return  # somebody else was faster; asyncio tries again
        else:
            self._refuse(connection)
        finally:
            self._keep_one()

    def _refuse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setblocking(False)
            connection.send(self._refusal)

    def _keep_one(self) -> None:
        with contextlib.suppress(OSError):
            self._reserve = os.open(os.devnull, os.O_RDONLY)

    def _say(self, what: str) -> None:
        now_s = MonotonicClock().now_s()
        if now_s - self._said_s >= _SAY_AGAIN_S:
            self._said_s = now_s
            logger.warning("%s (said at most once in %g s)", what, _SAY_AGAIN_S)
