"""Who asks: an address and a grant; and what those get who guess at tokens."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from dataclasses import dataclass

from streamlift.clock import Clock
from streamlift.service.grants import ANYBODY, Grant

__all__ = ["Caller", "Guesses", "address_of"]

GUESSES = 10
WITHIN_S = 60.0
SHORTEST_S = 0.5
LONGEST_S = 2.0
_MOST_ADDRESSES = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for something. `address` is `address_of` the peer, or empty if there is none."""

    address: str = ""
    grant: Grant = ANYBODY


def address_of(host: str) -> str:
    """Whom an address belongs to: an IPv4 address, or the 64 bits of an IPv6 network."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


class Guesses:
    """Wrong tokens by address: each waits longer than the last, and after ten within a minute
    there is no look at another for a while. Right tokens are none of its business. Pure."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def wrong(self, address: str) -> float | None:
        """How long this wrong token waits for its answer; None when there were too many."""
        now_s = self._clock.now_s()
        times = self._wrong.setdefault(address, deque())
        self._wrong.move_to_end(address)
        if len(self._wrong) > _MOST_ADDRESSES:
            self._wrong.popitem(last=False)
        while times and now_s - times[0] > WITHIN_S:
            times.popleft()
        if len(times) >= GUESSES:
            return None
        times.append(now_s)
        return min(SHORTEST_S * len(times), LONGEST_S)

    def retry_s(self, address: str) -> float:
        """When the oldest of its guesses will be forgotten."""
        times = self._wrong.get(address)
        return max(1.0, times[0] + WITHIN_S - self._clock.now_s()) if times else 1.0
