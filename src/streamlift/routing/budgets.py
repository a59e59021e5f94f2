"""Faults of backends, and budgets that say when a failed backend may be tried again."""

from __future__ import annotations

import dataclasses
from collections import deque
from enum import StrEnum

from streamlift.errors import (
    InvalidOutput,
    MediaError,
    NoCapacity,
    NotReady,
    OutOfMemory,
    UpscalerHung,
    WorkerDraining,
    WorkerExited,
    WorkerLost,
)
from streamlift.frames import BackendInfo, BackendState

__all__ = ["BackendFaults", "ErrorBudget", "FaultKind", "fault_kind", "info_within"]

BUDGET = 3
WINDOW_S = 60.0
INCIDENT_S = 0.5
BACK_OFF_S = 1.0
QUARANTINE_S = 30.0
LONGEST_QUARANTINE_S = 300.0


class FaultKind(StrEnum):
    """Label `kind` of `backend_faults_total`, and the beginning of a fault's reason."""

    RAISE = "raise"
    INVALID = "nan"  # or black, or misshapen
    HANG = "hang"
    OUT_OF_MEMORY = "oom"
    NOT_READY = "not_ready"
    NO_CAPACITY = "no_capacity"
    EXIT = "exit"  # of the worker's process
    LOST = "lost"  # the worker, or the link to it
    DRAINING = "draining"
    UNSUPPORTED = "unsupported"  # what the publisher sends, upscaled, fits no encoder

    @property
    def counts(self) -> bool:
        """Whether it is the backend's failure; being full, loading or about to end is none, nor is
        a publisher that sends what cannot be served: others on the same backend must not pay for
        it."""
        return self not in (
            FaultKind.NOT_READY,
            FaultKind.NO_CAPACITY,
            FaultKind.DRAINING,
            FaultKind.UNSUPPORTED,
        )


class ErrorBudget:
    """Three faults in a minute mean quarantine; pure, the caller brings the time.

    Lanes that fail within half a second are one fault: one crash ends all lanes of a backend.
    Before quarantine the backend may be tried again after 1 s, then 2 s. Quarantine starts at
    30 s and doubles, up to 5 minutes, with every further fault; a minute without one ends the
    series.
    """

    __slots__ = (
        "_closed_until_s",
        "_faults_s",
        "_incident_s",
        "_quarantine_s",
        "quarantined",
        "reason",
    )

    def __init__(self) -> None:
        self._faults_s: deque[float] = deque(maxlen=BUDGET)
        self._closed_until_s = self._incident_s = float("-inf")
        self._quarantine_s = QUARANTINE_S
        self.quarantined = False
        self.reason = ""

    def fault(self, now_s: float, reason: str) -> None:
        """A lane of the backend failed."""
        if now_s - self._incident_s < INCIDENT_S:
            return  # the incident is counted already
        self._incident_s = now_s
        self.reason = reason
        if now_s - self._closed_until_s > WINDOW_S:
            self._quarantine_s = QUARANTINE_S
        while self._faults_s and now_s - self._faults_s[0] > WINDOW_S:
            self._faults_s.popleft()
        self._faults_s.append(now_s)
        if self.quarantined or len(self._faults_s) >= BUDGET:
            self.quarantine(now_s, reason)
        else:
            self._closed_until_s = now_s + BACK_OFF_S * 2 ** (len(self._faults_s) - 1)

    def quarantine(self, now_s: float, reason: str) -> None:
        """Whatever was counted so far."""
        self.reason = reason
        self.quarantined = True
        self._closed_until_s = now_s + self._quarantine_s
        self._quarantine_s = min(2 * self._quarantine_s, LONGEST_QUARANTINE_S)

    def may_try(self, now_s: float) -> bool:
        return now_s >= self._closed_until_s

    def over(self, now_s: float) -> bool:
        """Whether the series of faults is over: the next one begins as the first did."""
        return now_s - max(self._closed_until_s, self._incident_s) > WINDOW_S

    def works(self, now_s: float) -> None:
        """A lane of the backend has shown pictures; ends quarantine."""
        if self.quarantined and self.may_try(now_s):
            self.quarantined = False
            self._faults_s.clear()
            self.reason = ""


class BackendFaults:
    """Whose the faults of one backend are: each stream's first, the backend's if it is shared.

    What a stream sends may provoke faults; then only that stream must keep away, for as long as
    its own budget says. The backend is in quarantine when two streams failed on it within a
    minute, three times in all, or when a stream's budget is used up (`suspect`) and a probe
    with pictures of the backend's own fails too.
    """

    def __init__(self) -> None:
        self.shared = ErrorBudget()
        self.suspect = False
        self._own: dict[str, ErrorBudget] = {}
        self._recent: deque[tuple[float, str, str]] = deque(maxlen=64)  # time, stream, reason
        self._shared_until_s = float("-inf")  # faults up to then are in the shared budget

    @property
    def quarantined(self) -> bool:
        return self.shared.quarantined

    def fault(self, now_s: float, reason: str, stream: str) -> None:
        """A lane of this stream failed."""
        self._forget(now_s)
        own = self._own.setdefault(stream, ErrorBudget())
        own.fault(now_s, reason)
        self._recent.append((now_s, stream, reason))
        if len({who for _, who, _ in self._recent}) > 1:
            for when_s, _, why in self._recent:
                if when_s > self._shared_until_s:
                    self.shared.fault(when_s, why)
            self._shared_until_s = now_s
        elif own.quarantined:
            self.suspect = True

    def probed(self, now_s: float, reason: str) -> None:
        """A probe is over; `reason` why it failed, empty if it did not."""
        self.suspect = False
        if reason:
            self.shared.quarantine(now_s, reason)

    def budget_for(self, stream: str, now_s: float) -> ErrorBudget:
        """The budget that keeps this stream away for longer; the shared one for nobody's."""
        own = self._own.get(stream)
        return self.shared if own is None or not self.shared.may_try(now_s) else own

    def may_try(self, now_s: float, stream: str) -> bool:
        return self.shared.may_try(now_s) and self.budget_for(stream, now_s).may_try(now_s)

    def works(self, now_s: float, stream: str) -> None:
        """A lane of this stream has shown pictures."""
        self.shared.works(now_s)
        if stream in self._own:
            self._own[stream].works(now_s)

    def _forget(self, now_s: float) -> None:
        """Streams come and go: nothing is kept of those that did no harm for long."""
        while self._recent and now_s - self._recent[0][0] > WINDOW_S:
            self._recent.popleft()
        for stream in [name for name, own in self._own.items() if own.over(now_s)]:
            del self._own[stream]


def info_within(info: BackendInfo, budget: ErrorBudget, now_s: float) -> BackendInfo:
    """What to tell of a backend, given its budget: a quarantined one is not ready.

    Once its time is over it is, although it has yet to prove itself: who else would try it?
    """
    quarantined = budget.quarantined and not budget.may_try(now_s)
    if not quarantined or info.state is not BackendState.READY:
        return info
    return dataclasses.replace(
        info, state=BackendState.QUARANTINED, reason=f"failed repeatedly: {budget.reason}"
    )


def fault_kind(error: Exception) -> FaultKind:
    """What sort of failure an exception out of a lane is; a timeout stands for a hang."""
    match error:
        case NotReady():
            return FaultKind.NOT_READY
        case NoCapacity():
            return FaultKind.NO_CAPACITY
        case WorkerDraining():
            return FaultKind.DRAINING
        case WorkerExited():
            return FaultKind.EXIT
        case WorkerLost():
            return FaultKind.LOST
        case MediaError():
            return FaultKind.UNSUPPORTED
        case InvalidOutput():
            return FaultKind.INVALID
        case OutOfMemory() | MemoryError():
            return FaultKind.OUT_OF_MEMORY
        case TimeoutError() | UpscalerHung():
            return FaultKind.HANG
        case _:
            return FaultKind.RAISE
