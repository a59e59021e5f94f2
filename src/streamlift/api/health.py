"""Health, readiness and Prometheus metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from streamlift import __version__
from streamlift.api import answers
from streamlift.api.door import TheService
from streamlift.api.rights import Scope, allowed
from streamlift.frames import BackendState, WorkerInfo
from streamlift.metrics import Histogram
from streamlift.service import Role, Service

__all__ = ["health"]

PREFIX = "streamlift_"

health = APIRouter(tags=["health"])


@health.get("/healthz")
async def healthz() -> answers.Health:
    """The process and its event loop are alive."""
    return {"status": "ok", "version": __version__}


@health.get(
    "/readyz",
    response_model=answers.Readiness,
    responses={503: {"model": answers.Readiness, "description": "Not ready"}},
)
async def readyz(request: Request, service: TheService) -> JSONResponse:
    """Ready for new streams? 503 with the reasons when not.

    Why a backend is not ready may name files and devices: that is for those with a token.
    """
    known = await allowed(request, Scope.VIEW, Scope.CONTROL)
    reasons: list[str] = []
    if service.draining:
        reasons.append("shutting down")
    backends = service.router.backends()
    if not any(b.state is BackendState.READY for b in backends):
        reasons.append("no backend is ready")
    reasons_by_backend = {
        b.name: b.reason if known else str(b.state)
        for b in backends
        if b.state is not BackendState.READY
    }
    answer: answers.Readiness = {
        "ready": not reasons,
        "reasons": reasons,
        "backends": reasons_by_backend,
    }
    if known and (why := service.no_new_workers()):
        answer["placement"] = why
    return JSONResponse(
        answer,
        status_code=503 if reasons else 200,
    )


@health.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(service: TheService) -> Response:
    """Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(_ServiceCollector(service))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _ServiceCollector(Collector):
    """Renders the plain counters and what can be read off the running parts."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        yield from self._counted()
        yield from self._sessions()
        yield from self._outputs()
        yield self._compared()
        backends = self._service.router.backends()
        yield from self._backends()
        yield from _worker_metrics([(b.name, w) for b in backends for w in b.workers])
        info = GaugeMetricFamily(PREFIX + "build_info", "Version.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info

    def _counted(self) -> Iterator[Metric]:
        metrics = self._service.metrics
        counters: dict[str, CounterMetricFamily] = {}
        for name, labels, value in sorted(metrics.counters()):
            keys, values = _split(labels)
            family = counters.setdefault(
                name, CounterMetricFamily(PREFIX + name, _words(name), labels=keys)
            )
            family.add_metric(values, value)
        histograms: dict[str, HistogramMetricFamily] = {}
        for name, labels, histogram in sorted(metrics.histograms(), key=lambda row: row[:2]):
            keys, values = _split(labels)
            rendered = histograms.setdefault(
                name, HistogramMetricFamily(PREFIX + name, _words(name), labels=keys)
            )
            rendered.add_metric(values, _buckets(histogram), histogram.total)
        yield from counters.values()
        yield from histograms.values()

    def _sessions(self) -> Iterator[Metric]:
        active = GaugeMetricFamily(
            PREFIX + "sessions_active", "WebRTC sessions now.", labels=["role", "state"]
        )
        counts: dict[tuple[str, str], int] = {}
        for session in self._service.sessions:
            role = "publisher" if session.role is Role.PUBLISH else "viewer"
            key = (role, session.peer.state)
            counts[key] = counts.get(key, 0) + 1
        for (role, state), count in sorted(counts.items()):
            active.add_metric([role, state], count)
        yield active
        pending = GaugeMetricFamily(PREFIX + "handshakes_pending", "Handshakes not finished.")
        pending.add_metric([], self._service.sessions.pending)
        yield pending

    def _outputs(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            PREFIX + "outputs_state", "Outputs in each state.", labels=["type", "state"]
        )
        counts = Counter((output.kind, str(output.state)) for output in self._service.outputs)
        for (kind, name), count in sorted(counts.items()):
            state.add_metric([kind, name], count)
        yield state

    def _compared(self) -> Metric:
        """Bounded by the number of backends."""
        lanes = GaugeMetricFamily(
            PREFIX + "comparisons", "Lanes that streams are compared on.", labels=["backend"]
        )
        streams = self._service.router.streams()
        counts = Counter(one.backend for stream in streams for one in stream.compare)
        for backend, count in sorted(counts.items()):
            lanes.add_metric([backend], count)
        return lanes

    def _backends(self) -> Iterator[Metric]:
        total = GaugeMetricFamily(
            PREFIX + "slots",
            "Streams of 512x512 at 25 fps that a backend can hold.",
            labels=["backend"],
        )
        used = GaugeMetricFamily(
            PREFIX + "slots_used",
            "As many of those as the streams it holds now amount to, rounded up.",
            labels=["backend"],
        )
        state = GaugeMetricFamily(
            PREFIX + "backend_state", "1 for the state it is in.", labels=["backend", "state"]
        )
        for backend in self._service.router.backends():
            total.add_metric([backend.name], backend.slots.total)
            used.add_metric([backend.name], backend.slots.used)
            for known in BackendState:
                state.add_metric([backend.name, known], float(backend.state is known))
        yield from (total, used, state)


_WORKER_STATES = ("ready", "loading", "draining", "unavailable")


def _worker_metrics(workers: list[tuple[str, WorkerInfo]]) -> Iterator[Metric]:
    """Bounded by the number of workers."""
    keys = ["backend", "worker"]
    state = GaugeMetricFamily(
        PREFIX + "worker_state", "1 for the state it is in.", labels=[*keys, "state"]
    )
    total = GaugeMetricFamily(PREFIX + "worker_slots", "Streams a worker can hold.", labels=keys)
    used = GaugeMetricFamily(PREFIX + "worker_slots_used", "Streams it holds.", labels=keys)
    rtt = GaugeMetricFamily(PREFIX + "link_rtt_seconds", "Round trip to it.", labels=["worker"])
    restarts = CounterMetricFamily(
        PREFIX + "worker_restarts", "Ends of its process.", labels=["worker", "reason"]
    )
    sent = CounterMetricFamily(
        PREFIX + "link_bytes", "Bytes over its link.", labels=["worker", "direction"]
    )
    for backend, worker in workers:
        for known in _WORKER_STATES:
            state.add_metric([backend, worker.name, known], float(worker.state == known))
        total.add_metric([backend, worker.name], worker.slots.total)
        used.add_metric([backend, worker.name], worker.slots.used)
        if worker.rtt_s is not None:
            rtt.add_metric([worker.name], worker.rtt_s)
        for reason, times in worker.restarts.items():
            restarts.add_metric([worker.name, reason], times)
        for direction, amount in worker.bytes.items():
            sent.add_metric([worker.name, direction], amount)
    if workers:
        yield from (state, total, used, rtt, restarts, sent)


def _split(labels: tuple[tuple[str, str], ...]) -> tuple[list[str], list[str]]:
    return [k for k, _ in labels], [v for _, v in labels]


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts, as the exposition format wants them."""
    buckets, seen = [], 0
    bounds = [*map(str, histogram.bounds), "+Inf"]
    for bound, count in zip(bounds, histogram.counts, strict=True):
        seen += count
        buckets.append((bound, float(seen)))
    return buckets


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize() + "."
