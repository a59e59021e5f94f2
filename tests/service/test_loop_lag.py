"""The watch on the event loop: a stall is measured, counted, and told with its place."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
from tests.serving import until

from streamlift.clock import ManualClock
from streamlift.metrics import Metrics
from streamlift.service.loop_lag import BEAT_S, LATE_S, SAY_AGAIN_S, LoopWatch


def block_the_loop(until_told: threading.Event) -> None:
    until_told.wait(20)


async def test_a_stall_is_told_with_the_place_where_the_loop_stands(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics, told = Metrics(), threading.Event()
    watch = LoopWatch(metrics)
    running = asyncio.create_task(watch.run())
    await until(lambda: any(True for _ in metrics.histograms()), "a first beat")
    watch_for = logging.getLogger("streamlift.service.loop_lag")
    handler = _Tell(told)
    watch_for.addHandler(handler)
    try:
        block_the_loop(told)  # on purpose, until the other thread has told of it
    finally:
        watch_for.removeHandler(handler)
    assert told.is_set()
    await until(lambda: bool(caplog.records), "the record to pass the other handlers")
    (record,) = [r for r in caplog.records if "has not gone round" in r.getMessage()]
    assert "block_the_loop" in record.getMessage()
    await until(lambda: _slowest(metrics) > 0, "the lag to be measured")
    assert metrics.value("event_loop_stalls_total") == 1
    running.cancel()
    await asyncio.wait([running])
    assert not [t for t in threading.enumerate() if t.name == "event-loop-watch"]


def test_one_stall_is_told_once_and_many_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock, metrics = ManualClock(100.0), Metrics()
    watch = LoopWatch(metrics, now_s=clock.now_s)
    watch._beat_s = clock.now_s()
    clock.advance(BEAT_S + LATE_S - 0.01)
    watch.look()
    assert not caplog.records  # not late enough
    clock.advance(0.02)
    for _ in range(5):
        watch.look()
    assert len(caplog.records) == 1
    for _ in range(3):  # three more stalls within ten seconds
        watch._beat_s = clock.now_s()
        clock.advance(1.0)
        watch.look()
    assert len(caplog.records) == 1
    assert metrics.value("event_loop_stalls_total") == 4
    watch._beat_s = clock.now_s()
    clock.advance(SAY_AGAIN_S)
    watch.look()
    assert "(3 others not told)" in caplog.records[-1].getMessage()


class _Tell(logging.Handler):
    def __init__(self, told: threading.Event) -> None:
        super().__init__()
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told.set()


def _slowest(metrics: Metrics) -> int:
    """How many beats were later than the stall's bound."""
    late = 0
    for name, _, histogram in metrics.histograms():
        if name == "event_loop_lag_seconds":
            bounds = [*histogram.bounds, float("inf")]
            late += sum(n for b, n in zip(bounds, histogram.counts, strict=True) if b > LATE_S)
    return late
