"""What one receiver took in and dropped, counted, and told in the log once a second at most."""

from __future__ import annotations

import logging
from collections import Counter

from streamlift.clock import Clock
from streamlift.frames import IngestCounts

__all__ = ["Tally"]

logger = logging.getLogger(__name__)


class Tally:
    """Counts by what happened; `name` is what the log calls the receiver."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.received = 0
        self.decoded = 0
        self.media_bytes = 0
        self._name = name
        self._clock = clock
        self._dropped: Counter[str] = Counter()
        self._logged_s = 0.0

    @property
    def counts(self) -> IngestCounts:
        return IngestCounts(self.received, self.decoded, dict(self._dropped))

    def drop(self, reason: str, detail: str) -> None:
        """Count a drop; `detail` is for the log."""
        self._dropped[reason] += 1
        now_s = self._clock.now_s()
        if now_s - self._logged_s >= 1.0:
            self._logged_s = now_s
            total = self._dropped[reason]
            logger.warning("%s: dropped %s (%s), %d in all", self._name, reason, detail, total)
