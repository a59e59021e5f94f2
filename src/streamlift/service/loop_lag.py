"""Watches the event loop: how late it is, and where it stands when it does not go round."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

from streamlift.metrics import Metrics

__all__ = ["LATE_S", "LoopWatch"]

logger = logging.getLogger(__name__)

BEAT_S = 0.1
LATE_S = 0.25
SAY_AGAIN_S = 10.0
_DEEPEST = 20


class LoopWatch:
    """`run` on the loop to be watched; a thread looks on, since the loop itself cannot.

    `event_loop_lag_seconds` gets each beat's lateness; when one is 250 ms late the loop's stack is
    logged, at most once in 10 s with a count of the others.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        late_s: float = LATE_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._late_s = late_s
        self._now_s = now_s
        self._beat_s = 0.0
        self._told_s = float("-inf")
        self._told_beat_s = -1.0
        self._unsaid = 0
        self._thread_id = 0
        self._over = threading.Event()

    async def run(self) -> None:
        """Until cancelled."""
        self._thread_id = threading.get_ident()
        self._beat_s = self._now_s()
        watcher = threading.Thread(target=self._look_on, name="event-loop-watch", daemon=True)
        watcher.start()
        try:
            while True:
                await asyncio.sleep(BEAT_S)
                now_s = self._now_s()
                self._metrics.observe(
                    "event_loop_lag_seconds", max(0.0, now_s - self._beat_s - BEAT_S)
                )
                self._beat_s = now_s
        finally:
            self._over.set()
            await asyncio.to_thread(watcher.join)

    def look(self) -> None:
        """One look from the other thread: say where the loop stands if it is late."""
        beat_s, now_s = self._beat_s, self._now_s()
        if now_s - beat_s - BEAT_S < self._late_s or beat_s == self._told_beat_s:
            return
        self._told_beat_s = beat_s
        self._metrics.count("event_loop_stalls_total")
        if now_s - self._told_s < SAY_AGAIN_S:
            self._unsaid += 1
            return
        frame = sys._current_frames().get(self._thread_id)
        stack = "".join(traceback.format_stack(frame, _DEEPEST)) if frame is not None else ""
        del frame
        logger.warning(
            "the event loop has not gone round for %.0f ms (%d others not told); it is here:\n%s",
            (now_s - beat_s) * 1000,
            self._unsaid,
            stack.rstrip(),
        )
        self._told_s, self._unsaid = now_s, 0

    def _look_on(self) -> None:
        while not self._over.wait(BEAT_S):
            self.look()
