"""How long to wait before connecting again, to pull and to push. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["LONGEST_ASKED_S", "LONGEST_WAIT_S", "PATIENCE_S", "Retries", "Retry"]

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
PATIENCE_S = 30.0
"""How long a busy source is asked as often as it says."""
LONGEST_ASKED_S = 300.0
"""Of a server's Retry-After; a mistake there must not end an output for good."""


class Retries:
    """When to pull again.

    A busy source is asked as often as it says for 30 s; after that, and after anything else, the
    waits are 1, 2, 4 ... 30 s. A connection that gave pictures begins all this anew.
    """

    def __init__(self) -> None:
        self._busy_since_s: float | None = None
        self._wait_s = 1.0

    def worked(self) -> None:
        self._busy_since_s = None
        self._wait_s = 1.0

    def failed(self, busy_s: float | None, now_s: float) -> tuple[bool, float]:
        """Whether that is still patience with a busy source, and how long to wait before trying.

        `busy_s`: in how many seconds a busy source would be asked again; None for another error.
        """
        if busy_s is None:
            self._busy_since_s = None
        else:
            if self._busy_since_s is None:
                self._busy_since_s = now_s
            if now_s - self._busy_since_s < PATIENCE_S:
                return True, busy_s
        wait_s, self._wait_s = self._wait_s, min(2 * self._wait_s, LONGEST_WAIT_S)
        return False, wait_s


@dataclass(slots=True)
class Retry:
    """Waits of 1, 2, 4 .. 30 s, each longer or shorter by up to a fifth, so that many do not
    come back at the same moment. `chance` gives numbers from 0 to 1."""

    chance: Callable[[], float] = random.random
    _next_s: float = FIRST_WAIT_S

    def wait_s(self, asked_s: float | None = None) -> float:
        """How long to wait now; at least what the server asked for."""
        wait_s = self._next_s * (0.8 + 0.4 * self.chance())
        self._next_s = min(2 * self._next_s, LONGEST_WAIT_S)
        return max(wait_s, min(asked_s or 0.0, LONGEST_ASKED_S))

    def reset(self) -> None:
        self._next_s = FIRST_WAIT_S
