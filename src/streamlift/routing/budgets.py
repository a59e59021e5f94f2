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
)
from streamlift.frames import BackendInfo, BackendState

__all__ = ["ErrorBudget", "FaultKind", "fault_kind", "info_within"]

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
    UNSUPPORTED = "unsupported"  # what the publisher sends, upscaled, fits no encoder

    @property
    def counts(self) -> bool:
        """Whether it is the backend's failure; being full or loading is none, nor is a publisher
        that sends what cannot be served: others on the same backend must not pay for it."""
        return self not in (FaultKind.NOT_READY, FaultKind.NO_CAPACITY, FaultKind.UNSUPPORTED)


class ErrorBudget:
    """Three faults in a minute put a backend in quarantine; pure, the caller brings the time.

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
            self.quarantined = True
            self._closed_until_s = now_s + self._quarantine_s
            self._quarantine_s = min(2 * self._quarantine_s, LONGEST_QUARANTINE_S)
        else:
            self._closed_until_s = now_s + BACK_OFF_S * 2 ** (len(self._faults_s) - 1)

    def may_try(self, now_s: float) -> bool:
        return now_s >= self._closed_until_s

    def works(self, now_s: float) -> None:
        """A lane of the backend has shown pictures; ends quarantine."""
        if self.quarantined and self.may_try(now_s):
            self.quarantined = False
            self._faults_s.clear()
            self.reason = ""


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
