"""Whether a viewer's link carries what it is sent, judged by the viewer's own reports. Pure."""

from __future__ import annotations

from streamlift.media.rtc.sender import ReceiverReport

__all__ = ["KeyframeAllowance", "LinkWatch"]

HIGH_LOSS = 0.10
LOW_ESTIMATE = 0.8
"""An estimate below this share of the rate sent means that the link is too thin for it."""
SLOW_AFTER_S = 4.0
"""Estimates of a new viewer begin low; a busy machine loses packets for a second or two."""
HOLD_S = 10.0
LONGEST_HOLD_S = 160.0
RELAPSE_S = 30.0
OLD_S = 5.0
"""A report older than this says nothing any more."""


class LinkWatch:
    """Slow after `SLOW_AFTER_S` of bad reports, good again after a while without any.

    That while doubles whenever the link turns out bad again soon, so that a viewer at the edge
    does not swing to and fro.
    """

    def __init__(self) -> None:
        self.slow = False
        self._loss: tuple[float, float] | None = None  # when, value
        self._estimate: tuple[float, float] | None = None
        self._bad_since_s: float | None = None
        self._good_since_s: float | None = None
        self._recovered_s: float | None = None
        self._hold_s = HOLD_S

    def observe(self, report: ReceiverReport, sent_bps: float | None, now_s: float) -> bool:
        """Take a report; True if `slow` changed. `sent_bps` is what the viewer is sent now."""
        if report.fraction_lost is not None:
            self._loss = (now_s, report.fraction_lost)
        if report.estimate_bps is not None:
            self._estimate = (now_s, report.estimate_bps)
        if self._is_bad(sent_bps, now_s):
            self._good_since_s = None
            self._bad_since_s = now_s if self._bad_since_s is None else self._bad_since_s
            if not self.slow and now_s - self._bad_since_s >= SLOW_AFTER_S:
                return self._turn_slow(now_s)
            return False
        self._bad_since_s = None
        self._good_since_s = now_s if self._good_since_s is None else self._good_since_s
        if self.slow and now_s - self._good_since_s >= self._hold_s:
            self.slow, self._recovered_s = False, now_s
            return True
        return False

    def _turn_slow(self, now_s: float) -> bool:
        relapsed = self._recovered_s is not None and now_s - self._recovered_s < RELAPSE_S
        self._hold_s = min(2 * self._hold_s, LONGEST_HOLD_S) if relapsed else HOLD_S
        self.slow = True
        return True

    def _is_bad(self, sent_bps: float | None, now_s: float) -> bool:
        loss, estimate = self._recent(self._loss, now_s), self._recent(self._estimate, now_s)
        if loss is not None and loss > HIGH_LOSS:
            return True
        return bool(sent_bps and estimate is not None and estimate < LOW_ESTIMATE * sent_bps)

    def _recent(self, noted: tuple[float, float] | None, now_s: float) -> float | None:
        return None if noted is None or now_s - noted[0] > OLD_S else noted[1]


class KeyframeAllowance:
    """How often one viewer may make the stream encode a keyframe.

    Keyframes cost all viewers quality: one whose link keeps losing them gets fewer, not more.
    """

    SPACING_S = 3.0

    def __init__(self) -> None:
        self._last_s: float | None = None

    def allows(self, now_s: float, *, slow: bool) -> bool:
        """Whether a request made now is passed on."""
        if slow and self._last_s is not None and now_s - self._last_s < self.SPACING_S:
            return False
        self._last_s = now_s
        return True
