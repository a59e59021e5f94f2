"""Counters, histograms and quantiles."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from streamlift.metrics import STAGE_BUCKETS_S, Histogram, Metrics, Quantiles


def test_a_counter_adds_up_per_label_set_whatever_their_order() -> None:
    metrics = Metrics()
    metrics.count("frames_total", stage="encoded", backend="a")
    metrics.count("frames_total", 2, backend="a", stage="encoded")
    metrics.count("frames_total", backend="b", stage="encoded")
    assert metrics.value("frames_total", stage="encoded", backend="a") == 3
    assert metrics.value("frames_total", stage="encoded", backend="b") == 1


def test_what_was_never_counted_is_zero() -> None:
    assert Metrics().value("nothing") == 0


def test_counting_from_many_threads_loses_nothing() -> None:
    metrics = Metrics()

    def work() -> None:
        for _ in range(2000):
            metrics.count("frames_total")
            metrics.observe("stage_duration_seconds", 0.01)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.value("frames_total") == 8000
    ((_, _, histogram),) = metrics.histograms()
    assert histogram.count == 8000


def test_a_histogram_that_was_read_does_not_change_any_more() -> None:
    metrics = Metrics()
    metrics.observe("stage_duration_seconds", 0.01)
    ((_, _, before),) = metrics.histograms()
    metrics.observe("stage_duration_seconds", 0.01)
    assert before.count == 1


@given(st.lists(st.floats(0, 100)))
def test_every_value_is_in_exactly_one_bucket_below_its_bound(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    assert histogram.count == len(values)
    for index, bound in enumerate(STAGE_BUCKETS_S):
        assert sum(histogram.counts[: index + 1]) == sum(v <= bound for v in values)


def test_quantiles_of_nothing_are_none() -> None:
    assert Quantiles().quantile(0.5) is None


def test_quantiles_forget_the_oldest() -> None:
    quantiles = Quantiles(size=4)
    for value in (100, 1, 2, 3, 4):
        quantiles.observe(value)
    assert quantiles.quantile(0.99) == 4
    assert quantiles.quantile(0) == 1
