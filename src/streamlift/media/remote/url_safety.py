"""Which addresses a pull may reach: of the hosts the operator allowed, the public ones.

A URL given to the API is an order to connect somewhere, so without these rules anyone who may give
one could reach what only this machine can reach (request forgery, OWASP SSRF). The decisions are
pure; a name is resolved once, and the connection goes to the address that was checked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from streamlift.errors import ConfigError

__all__ = [
    "WEB",
    "Address",
    "HostRules",
    "Resolve",
    "Target",
    "resolve_name",
    "same_origin",
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Addresses of a host name, as text; raises OSError when it has none."""

_MOST_CHARACTERS = 2048
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*")
_DEFAULT_PORTS = {
    "http": 80,
    "https": 443,
    "rtmp": 1935,
    "rtmps": 443,
    "rtsp": 554,
    "rtsps": 322,
}
WEB = ("http", "https")
_ENCRYPTED = ("https", "rtmps", "rtsps")
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_REFUSED = (
    # A cloud's own service under a public address (Azure); the others' are link-local or private.
    ipaddress.ip_network("168.63.129.16/32"),
    # For protocols' own use (one more metadata address), taken for global by older Pythons.
    ipaddress.ip_network("192.0.0.0/24"),
    ipaddress.ip_network("64:ff9b:1::/48"),
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads: scheme, host in lower case without brackets or final dot, port."""

    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


class HostRules:
    """What `sources.allowed_hosts` says.

    An entry is a name (`api.example.com`), all names below one (`*.example.com`), an address or a
    network (`192.168.1.20`, `10.0.0.0/8`). A name may resolve to public addresses, and to others
    only if these are listed too; `localhost` includes its own. What is not encrypted (http, rtmp,
    rtsp) is for listed addresses.
    """

    def __init__(self, allowed: Sequence[str], setting: str = "sources.allowed_hosts") -> None:
        """Raises ConfigError that names an entry which is none of these, and `setting`."""
        self._setting = setting
        self._names: set[str] = set()
        self._suffixes: list[str] = []
        self._networks: list[Network] = []
        for entry in allowed:
            self._add(entry.strip().lower())

    def check(self, url: str, schemes: Sequence[str] = WEB) -> Target:
        """Say where the URL leads. Raises ConfigError when it must not be followed, or has none of
        `schemes`."""
        target = _parse(url, schemes)
        literal = _literal(target.host)
        if not self._lists(target.host, literal):
            raise ConfigError(
                f"{target.host} is not among the hosts that this service may use; its operator "
                f"can list it in {self._setting} "
                f"(STREAMLIFT_{self._setting.upper().replace('.', '__')})",
                found=target.host,
                expected=f"a host in {self._setting}",
            )
        if literal is not None:
            self.check_addresses(target, (str(literal),))
        return target

    def check_addresses(self, target: Target, found: Sequence[str]) -> tuple[Address, ...]:
        """Of what the name resolved to, all must be allowed. Raises ConfigError otherwise."""
        addresses = tuple(_literal(text.partition("%")[0]) for text in found)
        if not addresses:
            raise ConfigError(f"{target.host} has no address", found=target.host)
        for address in addresses:
            if address is None or not self._permits(target, address):
                raise ConfigError(
                    f"{target.host} leads to {address}, which is not a public address and not "
                    f"listed in {self._setting}"
                    if address is None or not _is_public(address)
                    else f"{target.origin} is plain {target.scheme} to a public address; "
                    f"use {target.scheme}s",
                    found=str(address),
                    expected="a public address by an encrypted protocol, or a listed one",
                )
        return tuple(a for a in addresses if a is not None)

    def _add(self, entry: str) -> None:
        try:
            self._networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            return
        except ValueError:
            name = entry.removeprefix("*.").rstrip(".")
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{self._setting}: {entry!r} is neither a host, *.domain, address nor "
                "network; a port or a scheme does not belong there",
                found=entry,
                expected="api.example.com, *.example.com, 192.168.1.20 or 10.0.0.0/8",
            )
        if entry.startswith("*."):
            self._suffixes.append("." + name)
        else:
            self._names.add(name)

    def _lists(self, host: str, literal: Address | None) -> bool:
        if literal is not None:
            return any(_inside(literal, network) for network in self._networks)
        return host in self._names or any(host.endswith(s) for s in self._suffixes)

    def _permits(self, target: Target, address: Address) -> bool:
        own = _LOOPBACK if target.host == "localhost" else ()
        if any(_inside(address, network) for network in (*self._networks, *own)):
            return True
        return _is_public(address) and target.scheme in _ENCRYPTED


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs lead to the same scheme, host and port; no if one cannot be used."""
    try:
        return _parse(one) == _parse(other)
    except ConfigError:
        return False


def _parse(url: str, schemes: Sequence[str] = WEB) -> Target:
    if len(url) > _MOST_CHARACTERS or not url.isascii() or re.search(r"[\s\\\x00-\x1f\x7f]", url):
        raise _bad_url("no spaces, control or non-ASCII characters, at most 2048 in all")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _bad_url("a URL that can be read") from None
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in schemes:
        raise _bad_url(" or ".join(f"{scheme}://" for scheme in schemes))
    if parts.username is not None or parts.password is not None:
        raise _bad_url("no user name or password; give the token by itself")
    if _literal(host) is None and not _NAME.fullmatch(host):
        raise _bad_url("a host name or address")
    return Target(parts.scheme, host, _DEFAULT_PORTS[parts.scheme] if port is None else port)


def _bad_url(expected: str) -> ConfigError:
    # The URL itself is not repeated: it may hold a secret.
    return ConfigError(f"this URL cannot be used; expected {expected}", expected=expected)


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _inside(address: Address, network: Network) -> bool:
    return any(a.version == network.version and a in network for a in _forms(address))


def _is_public(address: Address) -> bool:
    """Globally reachable unicast, in all the forms that the address stands for."""
    return all(
        a.is_global
        and not (a.is_multicast or a.is_reserved or a.is_unspecified)
        and not any(a.version == n.version and a in n for n in _REFUSED)
        for a in _forms(address)
    )


def _forms(address: Address) -> tuple[Address, ...]:
    """The address, or the IPv4 address inside a mapped, NAT64, 6to4 or Teredo one and it."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address in _NAT64:
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    if address.sixtofour is not None:
        return (address, address.sixtofour)
    if address.teredo is not None:
        return (address, *address.teredo)
    return (address,)
