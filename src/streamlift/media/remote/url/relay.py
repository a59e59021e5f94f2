"""FFmpeg's one connection to an RTSP or RTMP server: made by us, to the address that was checked.

FFmpeg connects to this relay on the loopback address, and it to the server. So the name is resolved
once, a certificate is verified (FFmpeg does not by default), and an RTSP server cannot send FFmpeg
on to another address.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from streamlift.errors import reason_of
from streamlift.media.remote.url.ending import Lost, Refused
from streamlift.media.remote.url.readers import CONNECT_S
from streamlift.media.remote.url_safety import Address, Target

__all__ = ["Relay", "RtspGuard"]

SILENT_S = 10.0
_CHUNK = 65536
_MOST_HEAD = 65536
_TLS = ("rtsps", "rtmps")


class Relay:
    """Runs in a thread of its own from `begin` to the end of either side."""

    def __init__(self, target: Target, addresses: Sequence[Address], beat: Callable[[], None]):
        """Connects. Raises Lost."""
        self.why: Lost | Refused | None = None
        """Why it ended, if not by FFmpeg."""
        self._target = target
        self._beat = beat
        self._guard = RtspGuard() if target.scheme.startswith("rtsp") else None
        self._server = _connected(target, addresses, beat)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._listener.settimeout(SILENT_S)
        self.port: int = self._listener.getsockname()[1]

    def begin(self) -> None:
        threading.Thread(target=self._run, name="relay", daemon=True).start()

    def close(self) -> None:
        """Whatever waits for the server, or for us, goes on."""
        for end in (self._server, self._listener):
            with suppress(OSError):  # it has ended already
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _run(self) -> None:
        try:
            ffmpeg, _ = self._listener.accept()
        except OSError:
            return
        finally:
            self._listener.close()
        with ffmpeg, self._server:
            try:
                self._pass(ffmpeg)
            except (Lost, Refused) as error:
                self.why = error
            except (OSError, ValueError) as error:
                self.why = Lost(f"{self._target.host} broke off: {reason_of(error)}")

    def _pass(self, ffmpeg: socket.socket) -> None:
        server, guard = self._server, self._guard
        ffmpeg.settimeout(SILENT_S)
        while True:
            held = server.pending() if isinstance(server, ssl.SSLSocket) else 0
            ready = [server] if held else select.select([server, ffmpeg], [], [], SILENT_S)[0]
            if not ready:
                raise Lost(f"nothing came from {self._target.host} for {SILENT_S:g} s")
            if ffmpeg in ready:
                if not (data := ffmpeg.recv(_CHUNK)):
                    return
                server.sendall(data)
            if server in ready:
                if not (data := server.recv(_CHUNK)):
                    raise Lost(f"{self._target.host} ended the connection")
                self._beat()
                ffmpeg.sendall(data if guard is None else guard.passed(data))


class RtspGuard:
    """Reads along what an RTSP server says (RFC 2326), for answers that lead elsewhere."""

    def __init__(self) -> None:
        self._held = b""
        self._left = 0
        """Bytes that are to come of a message whose beginning has been passed on."""

    def passed(self, data: bytes) -> bytes:
        """What of it, and of what was held back, may go on. Raises Refused for a redirection."""
        held, at = self._held + data, 0
        while at < len(held):
            if self._left == 0:
                length = self._length(held, at)
                if length is None:
                    break
                self._left = length
            step = min(self._left, len(held) - at)
            self._left -= step
            at += step
        self._held = held[at:]
        return held[:at]

    def _length(self, held: bytes, at: int) -> int | None:
        """Of the message that begins there; None while too little of it has come."""
        if held[at] == 0x24:  # "$": RTP or RTCP in between (10.12)
            return None if len(held) < at + 4 else 4 + int.from_bytes(held[at + 2 : at + 4], "big")
        end = held.find(b"\r\n\r\n", at)
        if end < 0:
            if len(held) - at > _MOST_HEAD:
                raise Refused("the RTSP server answers with a head without end")
            return None
        first, *lines = held[at:end].decode("latin-1").split("\r\n")
        words = first.split(" ")
        if words[0].startswith("RTSP/") and len(words) > 1 and words[1].startswith("3"):
            raise Refused(
                "the RTSP server sends its readers to another address; give that one instead"
            )
        length = 0
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-length" and value.strip().isdecimal():
                length = int(value)
        return end + 4 - at + length


def _connected(
    target: Target, addresses: Sequence[Address], beat: Callable[[], None]
) -> socket.socket:
    failure: OSError | None = None
    for address in addresses:
        beat()
        try:
            plain = socket.create_connection((str(address), target.port), CONNECT_S)
            plain.settimeout(SILENT_S)
        except OSError as error:
            failure = error
            continue
        if target.scheme not in _TLS:
            return plain
        try:
            context = ssl.create_default_context()
            return context.wrap_socket(plain, server_hostname=target.host)
        except OSError as error:
            plain.close()
            failure = error
    assert failure is not None  # there is at least one address
    raise Lost(
        f"cannot reach {target.host}:{target.port}: {failure.strerror or reason_of(failure)}"
    )
