"""Where FFmpeg's bytes come from: files and sockets that we open, after looking where they lead.

FFmpeg itself opens nothing: not a file, not an address, not what a playlist names. Each address
goes through `Web`, which checks it, resolves its name once and connects to what was checked.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import httpx

from streamlift.errors import ConfigError, reason_of
from streamlift.media.remote.url.ending import Lost, Refused
from streamlift.media.remote.url.rules import Place, UrlRules, open_file
from streamlift.media.remote.url_safety import Address, Target

__all__ = ["FileReader", "ResolveNow", "UdpReader", "Web", "addresses_of", "resolve_now"]

SILENT_S = 10.0
CONNECT_S = 4.0
"""For each address of a name: one of them may be dead."""
MAX_REDIRECTS = 5
MOST_ORIGINS = 8
_CHUNK = 65536
_SKIPPED = 256 * 1024
"""So many bytes further on it is cheaper to read on than to ask anew."""
_REDIRECTS = (301, 302, 303, 307, 308)
_FOR_GOOD = {
    401: "it wants a user and password, or others",
    403: "it does not allow it",
}

ResolveNow = Callable[[str, int], Sequence[str]]
Beat = Callable[[], None]


def resolve_now(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def addresses_of(rules: UrlRules, target: Target, resolve: ResolveNow) -> tuple[Address, ...]:
    """Where the name leads now, if all of it is allowed. Raises Lost or ConfigError."""
    try:
        found = resolve(target.host, target.port)
    except OSError as error:
        raise Lost(f"{target.host} has no address: {error.strerror}") from error
    return rules.hosts.check_addresses(target, found)


class FileReader:
    """A file below a directory that is allowed."""

    def __init__(self, rules: UrlRules, place: Place) -> None:
        """Raises ConfigError or Lost."""
        assert place.path is not None
        try:
            self._file = os.fdopen(open_file(rules, place.path), "rb", buffering=0)
        except OSError as error:
            raise Lost(f"{place.path}: {error.strerror}") from error

    def read(self, size: int) -> bytes:
        return self._file.read(size) or b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


class UdpReader:
    """What is sent to an address of this machine, datagram by datagram."""

    def __init__(self, place: Place, beat: Beat) -> None:
        """Raises Lost when it cannot listen there."""
        assert place.listen is not None
        host, port = place.listen
        self._where, self._beat = f"udp://{host}:{port}", beat
        address = ipaddress.ip_address(host)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.settimeout(SILENT_S)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            if address.is_multicast:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
            if address.is_multicast and address.version == 4:
                group = address.packed + bytes(4)
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        except OSError as error:
            self._socket.close()
            raise Lost(f"cannot listen on {self._where}: {error.strerror}") from error

    def read(self, size: int) -> bytes:
        while True:
            try:
                data = self._socket.recv(size)
            except TimeoutError:
                raise Lost(f"nothing came to {self._where} for {SILENT_S:g} s") from None
            self._beat()
            if data:  # a datagram without bytes would be the end to FFmpeg
                return data

    def close(self) -> None:
        self._socket.close()


class Web:
    """Opens http and https addresses for FFmpeg: the first one, and those that a playlist names.

    Every address is checked, redirects too; user and password go to the first origin only.
    """

    def __init__(
        self, rules: UrlRules, place: Place, beat: Beat, resolve: ResolveNow = resolve_now
    ) -> None:
        assert place.target is not None
        self.refused: Refused | None = None
        """The first address that was not opened because it is not allowed."""
        self._rules = rules
        self._first = place.target
        self._user = place.user
        self._beat = beat
        self._resolve = resolve
        self._clients: dict[str, httpx.Client] = {}
        self._readers: list[WebReader] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for reader in self._readers:
            reader.close()
        for client in self._clients.values():
            client.close()

    def open(self, url: str, flags: int, options: Mapping[str, str]) -> WebReader:
        """PyAV's `io_open`: FFmpeg asks for an address, perhaps for a range of it.

        Raises Refused or Lost.
        """
        try:
            reader = WebReader(self, url, int(options.get("offset", 0)), _end(options))
        except ConfigError as error:
            self.refused = self.refused or Refused(
                f"it leads to what this service does not open: {error}"
            )
            raise self.refused from error
        self._readers = [one for one in self._readers if not one.closed]
        self._readers.append(reader)
        return reader

    def get(self, url: str, begin: int, end: int | None) -> tuple[httpx.Response, str]:
        """The answer and the address that gave it. Raises ConfigError, Refused or Lost."""
        for _ in range(MAX_REDIRECTS + 1):
            place = self._rules.check(url)
            if place.target is None or place.scheme not in ("http", "https"):
                raise ConfigError(
                    f"found {place.scheme}:// and expected http:// or https://", found=place.scheme
                )
            response = self._ask(place.url, place.target, begin, end)
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or location is None:
                return response, place.url
            response.close()
            url = str(httpx.URL(place.url).join(location))
        raise Lost(f"{self._first.host} redirects again and again")

    def beat(self) -> None:
        self._beat()

    def _ask(self, url: str, target: Target, begin: int, end: int | None) -> httpx.Response:
        failure: httpx.HTTPError | None = None
        for address in addresses_of(self._rules, target, self._resolve):
            try:
                request = self._request(httpx.URL(url), target, address, begin, end)
                response = self._client(target).send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                self._beat()
                failure = error  # another address of the same host may answer
                continue
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise Lost(f"cannot reach {target.host}: {_reason(error)}") from error
            self._beat()
            return response
        assert failure is not None  # there is at least one address
        raise Lost(f"cannot reach {target.host}: {_reason(failure)}") from failure

    def _client(self, target: Target) -> httpx.Client:
        """One for each origin: a connection that was made under a name serves that name only."""
        if (client := self._clients.get(target.origin)) is None:
            if len(self._clients) == MOST_ORIGINS:
                raise Refused(
                    "its playlists lead to too many hosts",
                    found=MOST_ORIGINS + 1,
                    expected=f"at most {MOST_ORIGINS}",
                )
            # trust_env off: a proxy would resolve the name again, past the check.
            client = httpx.Client(
                timeout=httpx.Timeout(SILENT_S, connect=CONNECT_S),
                follow_redirects=False,
                trust_env=False,
                verify=httpx.create_ssl_context(trust_env=False)
                if target.scheme == "https"
                else False,
            )
            self._clients[target.origin] = client
        return client

    def _request(
        self, url: httpx.URL, target: Target, address: Address, begin: int, end: int | None
    ) -> httpx.Request:
        """To the checked address, under the host's name: in Host, and in TLS (SNI, certificate)."""
        headers = {
            "Host": url.netloc.decode("ascii"),
            "Accept-Encoding": "identity",
            "User-Agent": "streamlift",
        }
        if begin or end is not None:
            headers["Range"] = f"bytes={begin}-" + ("" if end is None else str(end - 1))
        if self._user is not None and target.origin == self._first.origin:
            headers["Authorization"] = "Basic " + _basic(self._user)
        extensions: dict[str, Any] = {"sni_hostname": target.host}
        return self._client(target).build_request(
            "GET", url.copy_with(host=str(address)), headers=headers, extensions=extensions
        )


class WebReader:
    """The bytes of one address, as a file; to be moved in only where the server takes ranges."""

    def __init__(self, web: Web, url: str, begin: int, end: int | None) -> None:
        self.closed = False
        self._web = web
        self._url = url
        self._begin, self._end = begin, end
        self._at = begin
        self._size: int | None = None
        self._response, self._chunks = self._get(begin)
        self._held = b""
        length = self._response.headers.get("content-length", "")
        if length.isdecimal():
            self._size = begin + int(length)
        ranges = self._response.headers.get("accept-ranges", "").lower() == "bytes"
        self._movable = ranges and self._size is not None and end is None

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end. Raises Lost."""
        while not self._held:
            try:
                self._held = next(self._chunks)
            except StopIteration:
                return b""
            except httpx.HTTPError as error:
                raise Lost(f"{httpx.URL(self._url).host} broke off: {_reason(error)}") from error
            self._web.beat()
        data, self._held = self._held[:size], self._held[size:]
        self._at += len(data)
        return data

    def seekable(self) -> bool:
        return self._movable

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place in the file; asks the server anew, unless it lies close ahead."""
        assert self._size is not None
        to = {0: 0, 1: self._at, 2: self._size}[whence] + offset
        if not 0 <= to <= self._size:
            raise Lost(f"found a place at {to} bytes in a file of {self._size}")
        while self._at < to <= self._at + _SKIPPED:
            if not self.read(min(to - self._at, _CHUNK)):
                break
        if to != self._at:
            self._response.close()
            self._held, self._at = b"", to
            self._response, self._chunks = self._get(to)
        return to

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._response.close()

    def _get(self, begin: int) -> tuple[httpx.Response, Iterator[bytes]]:
        if self._end is None and begin and begin == self._size:
            return self._response, iter(())  # nothing is there: a server would answer 416
        response, self._url = self._web.get(self._url, begin, self._end)
        wanted = 206 if begin or self._end is not None else 200
        if response.status_code != wanted:
            response.close()
            host = httpx.URL(self._url).host
            if (final := _FOR_GOOD.get(response.status_code)) is not None:
                raise Refused(f"{host} answered {response.status_code}: {final}")
            raise Lost(
                f"{host} answered {response.status_code}",
                found=response.status_code,
                expected=wanted,
            )
        return response, response.iter_raw(_CHUNK)


def _end(options: Mapping[str, str]) -> int | None:
    end = int(options.get("end_offset", 0))
    return end or None


def _basic(user: str) -> str:
    name, _, password = user.partition(":")
    return base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()


def _reason(error: Exception) -> str:
    return "no answer in time" if isinstance(error, httpx.TimeoutException) else reason_of(error)
