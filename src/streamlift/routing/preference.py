"""Which backend a stream should be shown on, and when to try for it again; pure."""

from __future__ import annotations

from dataclasses import dataclass

from streamlift.routing.backends import BackendTable

__all__ = ["Preference", "Request"]

RETRY_S, LONGEST_RETRY_S = 2.0, 30.0
"""Between attempts to return to a backend that is full or loading."""
PATIENCE_S = 5.0
"""How long a shown lane that is behind may put off the return: a second lane beside it would make
it later still, and pictures would be skipped at the cut."""


@dataclass(frozen=True, slots=True)
class Request:
    """A switch that was asked for and has not begun. `before`: what was wanted until then."""

    reason: str
    before: str


class Preference:
    """What is wanted, what is shown instead, and why. The caller brings the time.

    `degraded`: the picture comes from the fallback, for the reason `why`.
    """

    def __init__(self, wanted: str, table: BackendTable, stream: str) -> None:
        self.wanted = wanted
        self.degraded = False
        self.why = ""
        self.request: Request | None = None
        self._table = table
        self._stream = stream
        self._retry_s = float("-inf")
        self._retry_after_s = RETRY_S
        self._restless_since_s: float | None = None  # since when the shown lane is behind

    @property
    def target(self) -> str:
        """The wanted backend; the fallback while that one is not there at all."""
        fallback = self._table.fallback
        return self.wanted if self.wanted in self._table or fallback is None else fallback

    def want(self, backend: str) -> None:
        """Another backend is wanted; a request that has not begun is forgotten."""
        self.wanted = backend
        self.request = None

    def for_new_lane(self) -> str:
        """The backend for a lane that is opened now."""
        fallback = self._table.fallback
        if fallback is None or self._table.usable(self.wanted, self._stream):
            return self.wanted
        self.degraded = fallback != self.wanted
        self.why = self._table.why_not(self.wanted, self._stream)
        return fallback

    def for_slate(self) -> str:
        """The backend for the still picture of a stream without publisher."""
        return self._table.fallback or self.wanted

    def after_fault(self, failed: str, reason: str) -> str:
        """The backend for the lane that replaces a failed one."""
        backend = self._table.fallback or failed
        self.degraded = self.degraded or backend != self.wanted
        self.why = f"{failed} failed: {reason}"
        return backend

    def gave_up(self, now_s: float, back_to: str | None) -> None:
        """A switch came to nothing; `back_to`: what is wanted again, if not the same."""
        if back_to is not None:
            self.wanted = back_to
        self._retry_s = now_s + self._retry_after_s
        self._retry_after_s = min(2 * self._retry_after_s, LONGEST_RETRY_S)

    def shown(self, backend: str, now_s: float) -> None:
        """A lane on this backend has shown its first picture."""
        if backend == self.wanted:
            self.degraded = False
            self._retry_after_s = RETRY_S
            self._table.faults(backend).works(now_s, self._stream)

    def due(self, shown: str, calm: bool, now_s: float, leaving: bool = False) -> bool:
        """Whether to begin moving from backend `shown` to the wanted one now.

        The same backend will do for a lane that is `leaving`.

        What was asked for begins at once. The way back after a fault waits until the shown lane
        is `calm`, that is, until it has caught up with what the failed one owed.
        """
        if self.request is not None:
            return True
        target = self.target
        if target != self.wanted:
            self.degraded, self.why = True, self._table.why_not(self.wanted, self._stream)
        stays = shown == target and not leaving
        if stays or now_s < self._retry_s or not self._table.usable(target, self._stream):
            self._restless_since_s = None
            return False
        if calm:
            self._restless_since_s = None
            return True
        if self._restless_since_s is None:
            self._restless_since_s = now_s
        return now_s - self._restless_since_s > PATIENCE_S
