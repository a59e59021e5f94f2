"""uvicorn as this service needs it: its own limits, and deadlines for each connection."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from streamlift.api.listener import Listener, Places, places_for
from streamlift.config import Config
from streamlift.portable import take_address

__all__ = ["listen", "server_settings"]

MAX_HEAD_BYTES = 16 * 1024
_BACKLOG = 128
_CLOSING_S = 5
_SAY_AGAIN_S = 10.0
_UNREAD_S = 30.0
_PIECE_BYTES = 4096
_MOST_WAITING = 1024 * 1024
"""How long a peer may leave unread what it asked for."""


def listen(config: Config, host: str, port: int) -> Listener:
    """A listening socket with the places of `limits.connections`. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    places = Places(places_for(config.limits.connections))
    listener = Listener(
        family, places, head_s=config.limits.head_s, tls=config.server.tls_cert is not None
    )
    try:
        take_address(listener)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


def server_settings(app: FastAPI, config: Config, listener: Listener) -> uvicorn.Config:
    """For `uvicorn.Server`; the listener goes to its `run` or `serve`."""

    class Connection(BoundedConnection):
        places = listener.places
        head_s = config.limits.head_s

    return uvicorn.Config(
        app,
        ssl_certfile=config.server.tls_cert,
        ssl_keyfile=config.server.tls_key,
        http=Connection,
        ws="none",
        loop="asyncio",  # the listener's `accept` is asyncio's to call
        log_config=None,
        access_log=False,
        proxy_headers=False,  # the service reads them itself, from `server.trusted_proxies`
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_CLOSING_S,
        lifespan="on",
    )


class _OnceInAWhile(logging.Filter):
    """Strangers' bad requests must not fill a disk: each warning at most once in 10 s."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        if record.created - self._said.get(record.msg, 0.0) < _SAY_AGAIN_S:
            return False
        self._said[record.msg] = record.created
        return True


_requests_log = logging.getLogger("uvicorn.error.requests")
_requests_log.addFilter(_OnceInAWhile())


class BoundedConnection(H11Protocol):
    """A connection of uvicorn with deadlines: it waits for no head and no reader for ever.

    Between two requests uvicorn's own, shorter deadline holds, until the first byte comes.
    """

    places: Places
    head_s: float

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.logger = _requests_log
        self._waiting = b""
        self._headless: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._headless, self._unread):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """In pieces, others having their turn between: a body may come in chunks of one byte, and
        h11 makes an event of each. 200 kB of them held up all else for half a second."""
        begun = bool(self._waiting)
        self._waiting += data
        if len(self._waiting) > _MOST_WAITING:
            self.transport.abort()
        elif not begun:
            self._take_piece()

    def _take_piece(self) -> None:
        if self.transport.is_closing():
            self._waiting = b""
            return
        piece, rest = self._waiting[:_PIECE_BYTES], self._waiting[_PIECE_BYTES:]
        self._waiting = rest
        super().data_received(piece)
        self._watch_head()
        if rest:
            self.transport.pause_reading()
            self.loop.call_soon(self._take_piece)
        elif not self.flow.read_paused:
            self.transport.resume_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(_UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _watch_head(self) -> None:
        """While no request is in progress, the time for the head of the next one runs."""
        busy = self.cycle is not None and not self.cycle.response_complete
        self.places.mark(self.transport.get_extra_info("peername"), busy=busy)
        if busy and self._headless is not None:
            self._headless.cancel()
            self._headless = None
        elif not busy and self._headless is None:
            self._headless = self.loop.call_later(self.head_s, self._no_head)

    def _no_head(self) -> None:
        self._headless = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # it does not even read; closing would wait for that
        else:
            self.timeout_keep_alive_handler()
