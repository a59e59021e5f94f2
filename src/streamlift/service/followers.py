"""Those who follow the events: how many one token may have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from streamlift.errors import TooMany
from streamlift.service.callers import Caller

__all__ = ["Followers"]


class Followers:
    """Counts by token; where there are no tokens, by address."""

    def __init__(self, per_token: int) -> None:
        self._per_token = per_token
        self._following: Counter[str] = Counter()

    def check(self, caller: Caller) -> None:
        """Raises TooMany."""
        following = self._following[_whose(caller)]
        if following >= self._per_token:
            raise TooMany(
                "too many follow the events with this token; end one first",
                found=following,
                expected=f"fewer than {self._per_token + 1}",
            )

    @contextmanager
    def following(self, caller: Caller) -> Iterator[None]:
        """For as long as the caller follows. Raises TooMany."""
        self.check(caller)
        whose = _whose(caller)
        self._following[whose] += 1
        try:
            yield
        finally:
            self._following[whose] -= 1
            if not self._following[whose]:
                del self._following[whose]


def _whose(caller: Caller) -> str:
    return caller.grant.key or caller.address
