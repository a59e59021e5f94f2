"""Plain counters and histograms; `api` renders them for Prometheus."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["STAGE_BUCKETS_S", "Histogram", "Metrics", "Quantiles"]

STAGE_BUCKETS_S = tuple(ms / 1000 for ms in (0.5, 1, 2, 5, 10, 20, 40, 80, 160, 320, 640, 1280))

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Histogram:
    """Counts per bucket (upper bounds in seconds), sum and count."""

    bounds: tuple[float, ...] = STAGE_BUCKETS_S
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)


class Quantiles:
    """The last `size` values; answers p50 and p95. Cheap to feed, sorted only when asked."""

    __slots__ = ("_values",)

    def __init__(self, size: int = 256) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def observe(self, value: float) -> None:
        self._values.append(value)

    def quantile(self, q: float) -> float | None:
        values = sorted(self._values)
        if not values:
            return None
        return values[min(len(values) - 1, int(q * len(values)))]


class Metrics:
    """A registry of named series. Names are without the `streamlift_` prefix.

    One lock guards it: engine, encode and decode threads count too, and a dict update under a
    lock costs well under a microsecond.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[tuple[str, Labels], float] = {}
        self._histograms: dict[tuple[str, Labels], Histogram] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        key = (name, _labels(labels))
        with self._lock:
            self._counters[key] = self._counters.get(key, 0) + amount

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        key = (name, _labels(labels))
        with self._lock:
            histogram = self._histograms.get(key)
            if histogram is None:
                histogram = self._histograms[key] = Histogram()
            histogram.observe(seconds)

    def value(self, name: str, **labels: str) -> float:
        """One counter's value; 0 if it was never touched."""
        key = (name, _labels(labels))
        with self._lock:
            return self._counters.get(key, 0.0)

    def counters(self) -> Iterator[tuple[str, Labels, float]]:
        with self._lock:
            series = [(n, labels, v) for (n, labels), v in self._counters.items()]
        yield from series

    def histograms(self) -> Iterator[tuple[str, Labels, Histogram]]:
        with self._lock:
            series = [(n, labels, _copy(h)) for (n, labels), h in self._histograms.items()]
        yield from series


def _labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def _copy(histogram: Histogram) -> Histogram:
    twin = Histogram(histogram.bounds)
    twin.counts = list(histogram.counts)
    twin.total = histogram.total
    return twin
