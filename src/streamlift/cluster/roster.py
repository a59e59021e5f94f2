"""Where the workers of a backend are: processes of this machine, or a list of addresses."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from streamlift.clock import Clock
from streamlift.cluster.backend import WorkerBackend
from streamlift.cluster.child import Child
from streamlift.cluster.link import Link
from streamlift.cluster.trust import Trust
from streamlift.config import BackendConfig, ClusterConfig, Config
from streamlift.metrics import Metrics

__all__ = ["Roster", "WorkerAddress", "build_worker_backend", "link_to"]


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """A worker that may be dialled. `fingerprint`: sha256:HEX of its certificate."""

    backend: str
    address: str
    fingerprint: str | None = None


def anchor_name(cluster: ClusterConfig) -> str:
    return cluster.name or socket.gethostname()


def link_to(worker: WorkerAddress, config: Config, clock: Clock, metrics: Metrics) -> Link:
    """A link to a worker on another machine; add it to its WorkerBackend."""
    cluster = config.cluster
    trust = Trust(
        cluster.token, worker.fingerprint, cluster.tls_ca, cluster.tls_cert, cluster.tls_key
    )
    return Link(
        worker.address,
        worker.address,
        trust,
        backend=worker.backend,
        anchor=anchor_name(cluster),
        units=True,
        clock=clock,
        metrics=metrics,
    )


class Roster:
    """Brings the links of backends up to what is known of workers now: dials and hangs up."""

    def __init__(
        self,
        backends: Mapping[str, WorkerBackend],
        config: Config,
        *,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._backends = backends
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._links: dict[WorkerAddress, Link] = {}

    async def update(self, workers: Iterable[WorkerAddress]) -> None:
        """Workers that are no longer named are hung up on, new ones dialled."""
        named = {w for w in workers if w.backend in self._backends}
        for worker in [w for w in self._links if w not in named]:
            await self._backends[worker.backend].remove(self._links.pop(worker))
        for worker in sorted(named - self._links.keys(), key=lambda w: w.address):
            link = link_to(worker, self._config, self._clock, self._metrics)
            self._links[worker] = link
            self._backends[worker.backend].add(link)


def build_worker_backend(
    backend: BackendConfig, config: Config, clock: Clock, metrics: Metrics
) -> WorkerBackend:
    """A backend with link `process` or `remote`; nothing runs before its `start`."""
    if backend.link == "remote" and config.cluster.placement != "local":
        made = WorkerBackend(backend.name, backend.upscaler, clock=clock)
        for worker in config.cluster.workers:
            if worker.backend == backend.name:
                address = WorkerAddress(worker.backend, worker.address, worker.fingerprint)
                made.add(link_to(address, config, clock, metrics))
        return made
    count = backend.workers
    children = [
        _child(backend, config, number if count > 1 else None, clock, metrics)
        for number in range(count)
    ]
    return WorkerBackend(backend.name, backend.upscaler, clock=clock, children=children)


def _child(
    backend: BackendConfig, config: Config, number: int | None, clock: Clock, metrics: Metrics
) -> Child:
    name = backend.name if number is None else f"{backend.name}-{number}"

    def make_link(child: Child, address: str) -> Link:
        return Link(
            name,
            address,
            Trust(),
            backend=backend.name,
            anchor=anchor_name(config.cluster),
            units=False,
            clock=clock,
            metrics=metrics,
            ready_to_dial=child.listens,
            why_lost=child.why_lost,
            on_silent=child.silent,
        )

    # One child a GPU: the pattern names the kind, the environment the one of that kind.
    environment = {} if number is None else _one_gpu(number)
    told = child_configuration(name, backend, config)
    return Child(name, told, make_link, environment=environment)


def child_configuration(name: str, backend: BackendConfig, config: Config) -> dict[str, Any]:
    """What a worker process is told, as overrides of a configuration; see `cli.worker`."""
    own = dataclasses.replace(backend, link="inproc", workers=1)
    fields = {f.name: getattr(own, f.name) for f in dataclasses.fields(own)}
    fields["settings"] = dict(backend.settings)
    return {
        "backends": [fields],
        "default_backend": backend.name,
        "encode.preset": config.encode.preset,
        "ingest.max_age_ms": config.ingest.max_age_ms,
        "ingest.max_size": config.ingest.max_size,
        "cluster.name": name,
    }


def _one_gpu(number: int) -> dict[str, str]:
    """Only the GPU of this number is shown to the process, of those that are shown to us."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [d for d in (shown or "").split(",") if d]
    if shown is not None:
        return {"CUDA_VISIBLE_DEVICES": devices[number] if number < len(devices) else ""}
    return {"CUDA_VISIBLE_DEVICES": str(number)}
