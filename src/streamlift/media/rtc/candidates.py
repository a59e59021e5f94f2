"""Which of a peer's ICE candidates are checked: each of them gets packets from here. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable

__all__ = ["MAX_CANDIDATES", "MAX_HOSTS", "Candidates", "is_address", "is_usable"]

MAX_CANDIDATES = 64
MAX_HOSTS = 8
"""Different addresses of one session; a machine with more interfaces is still reached by these."""
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"),
    )
)
"""Where clouds tell machines their secrets; the first is link-local anyway."""
_SHARED = ipaddress.ip_network("100.64.0.0/10")
"""Behind a carrier's NAT (RFC 6598): private to the carrier."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Candidates:
    """Chooses among one peer's candidates, those of its description and later ones together."""

    def __init__(self, *, deny_private: bool = False) -> None:
        self.refused: Counter[str] = Counter()
        """By reason: `unusable`, `address` (one that is never checked), `private`, `surplus`."""
        self._deny_private = deny_private
        self._taken: set[tuple[_Address, str]] = set()

    def take(self, lines: Iterable[str]) -> list[str]:
        """Those of `a=candidate` or `candidate` lines to check, each address and port once."""
        return [line for line in lines if self._takes(line)]

    def _takes(self, line: str) -> bool:
        if not is_usable(line):
            self.refused["unusable"] += 1
            return False
        fields = line.split()
        address = _plain(ipaddress.ip_address(fields[4]))
        if _is_never_checked(address):
            self.refused["address"] += 1
            return False
        if self._deny_private and (address.is_private or _is_shared(address)):
            self.refused["private"] += 1
            return False
        target = (address, str(int(fields[5])))
        if target in self._taken:
            return False  # bundled sections repeat them
        hosts = {host for host, _ in self._taken} | {address}
        if len(self._taken) >= MAX_CANDIDATES or len(hosts) > MAX_HOSTS:
            self.refused["surplus"] += 1
            return False
        self._taken.add(target)
        return True


def is_usable(candidate: str) -> bool:
    """A UDP candidate of the one component, as RFC 8839 section 5.1 writes it."""
    fields = candidate.split()
    if len(fields) < 8 or fields[1] != "1" or fields[2].lower() != "udp":
        return False
    if not (re.fullmatch(r"[0-9]{1,10}", fields[3]) and re.fullmatch(r"[0-9]{1,5}", fields[5])):
        return False
    if fields[6] != "typ" or not (is_address(fields[4]) and 0 < int(fields[5]) <= 65535):
        return False
    # aiortc reads the rest in pairs, and this one as a number.
    related = [v for k, v in zip(fields[8::2], fields[9::2], strict=False) if k == "rport"]
    return all(re.fullmatch(r"[0-9]{1,5}", port) for port in related)


def is_address(text: str) -> bool:
    """Whether it is a literal IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _plain(address: _Address) -> _Address:
    """An IPv4 address that is written as an IPv6 one, as what it is."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_never_checked(address: _Address) -> bool:
    """No peer answers there, or one that must not be asked by strangers."""
    if isinstance(address, ipaddress.IPv4Address) and address >= ipaddress.IPv4Address("240.0.0.0"):
        return True  # reserved, and the broadcast address
    return (
        address.is_multicast
        or address.is_unspecified
        or address.is_link_local
        or address in _METADATA
    )


def _is_shared(address: _Address) -> bool:
    return isinstance(address, ipaddress.IPv4Address) and address in _SHARED
