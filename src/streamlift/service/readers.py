"""The RTSP door: who may read what, and how many at once."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from socket import AF_INET, AF_INET6, create_server
from socket import socket as Socket

from streamlift.config import RtspConfig
from streamlift.errors import ConfigError, TokenError, TooMany
from streamlift.frames import Codec
from streamlift.media.rtc.sdp import Role
from streamlift.media.rtsp.messages import HEAD_BYTES
from streamlift.media.rtsp.reader import Opened, Reader, Refused
from streamlift.routing import View
from streamlift.service.callers import Caller, address_of
from streamlift.service.grants import Scope
from streamlift.service.service import Service

__all__ = ["RtspDoor", "rtsp_socket"]

logger = logging.getLogger(__name__)

_SIGN_IN = {"WWW-Authenticate": 'Basic realm="streamlift", charset="UTF-8"'}


def rtsp_socket(config: RtspConfig) -> Socket:
    """A socket that is bound, so that a port in use is told before anything is started.

    Raises ConfigError when the address cannot be had.
    """
    host, port = config.host, config.port
    try:
        return create_server((host, port), family=AF_INET6 if ":" in host else AF_INET)
    except OSError as error:
        raise ConfigError(
            f"rtsp cannot listen on {host}:{port}: {error.strerror}; set rtsp.port to another",
            found=f"{host}:{port}",
        ) from error


class RtspDoor:
    """Listens once `listen` has returned, until `aclose`."""

    def __init__(self, service: Service, socket: Socket) -> None:
        """`socket`: from `rtsp_socket`; it is closed with the door."""
        self._service = service
        self._socket = socket
        self._server: asyncio.Server | None = None
        self._connections: Counter[str] = Counter()

    @property
    def port(self) -> int:
        """The one it listens on: of a configured 0, the one that the system gave."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._socket, limit=HEAD_BYTES)
        host, port = self._socket.getsockname()[:2]
        logger.info("RTSP readers: rtsp://%s:%d/<stream>", host, port)

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, into: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        name = out.get_extra_info("peername")
        address = address_of(str(name[0])) if name else ""
        limits = self._service.config.limits
        full = self._connections.total() >= limits.connections
        if full or self._connections[address] >= limits.rtsp_per_address:
            self._service.metrics.count("connections_refused_total", reason="rtsp")
            out.close()
            return
        self._connections[address] += 1
        try:
            reader = Reader(
                (into, out),
                _Place(self._service, address),
                self._service.packetizer,
                clock=self._service.clock,
                unix_s=self._service.unix_s,
                head_s=limits.head_s,
            )
            await reader.run()
        except Exception:
            # Broad on purpose: one reader's fault must not reach the server's own handler.
            logger.exception("an RTSP reader's connection failed")
        finally:
            self._connections[address] -= 1
            if not self._connections[address]:
                del self._connections[address]


class _Place:
    """One connection's way to the service; fits `rtsp.reader.Door`."""

    def __init__(self, service: Service, address: str) -> None:
        self._service = service
        self._caller = Caller(address)

    async def admit(self, stream: str, password: str | None) -> None:
        service, scopes = self._service, (Scope.VIEW,)
        if service.grants.open_to_all(scopes):
            return
        if not password:
            raise Refused(401, _SIGN_IN)
        address = self._caller.address
        try:
            grant = service.grants.read(password)
        except TokenError:
            wait_s = service.guesses.wrong(address)
            if wait_s is None:
                raise Refused(403, closes=True) from None
            await asyncio.sleep(wait_s)
            raise Refused(401, _SIGN_IN) from None
        if not grant.allows(scopes, stream):
            raise Refused(403)
        self._caller = Caller(address, grant)

    @contextmanager
    def open(self, stream: str, reader: Reader) -> Iterator[Opened]:
        service = self._service
        if service.draining:
            raise Refused(503, {"Retry-After": "2"}, closes=True)
        try:
            with service.sessions.answering(Role.VIEW, stream, self._caller):
                session = service.sessions.open(Role.VIEW, stream, reader, self._caller)
        except TooMany as error:
            logger.info("stream %s: an RTSP reader is refused: %s", stream, error)
            raise Refused(503, {"Retry-After": "2"}) from error
        service.metrics.count("sessions_total", role="viewer", result="answered")
        with ExitStack() as held:
            held.callback(service.sessions.remove, session)
            frames = held.enter_context(service.router.watch(stream, View.UPSCALED, Codec.H264))
            sound = None
            if service.has_sound(stream):
                sound = held.enter_context(service.listening(stream))
            yield Opened(frames, sound)
