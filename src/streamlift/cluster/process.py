"""The life of a worker process: listen, load, serve until it is told to end, drain."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

from streamlift.clock import Clock
from streamlift.cluster.trust import Door, is_local, server_credentials, split_address
from streamlift.cluster.worker import WorkerService, make_server
from streamlift.config import ClusterConfig
from streamlift.engine import EngineBackend
from streamlift.errors import ConfigError, MediaError
from streamlift.frames import BackendState
from streamlift.portable import on_signal

__all__ = ["check_worker_exposure", "run_worker"]

logger = logging.getLogger(__name__)


def check_worker_exposure(listen: str, cluster: ClusterConfig) -> None:
    """Raises ConfigError for a worker that others could reach without a token, or listen in on."""
    if is_local(listen):
        return
    missing = []
    if cluster.token is None:
        missing.append("cluster.token")
    if cluster.tls_cert is None or cluster.tls_key is None:
        missing.append("cluster.tls_cert and cluster.tls_key (streamlift worker --make-cert DIR)")
    if missing:
        raise ConfigError(
            f"a worker on {listen} can be reached from other machines: "
            f"set {' and '.join(missing)}, or listen on 127.0.0.1",
            found=listen,
            expected=missing,
        )


async def run_worker(
    name: str,
    backend: EngineBackend,
    listen: str,
    cluster: ClusterConfig,
    *,
    clock: Clock,
    max_side: int,
    tell: Callable[[str], None],
    label: str | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; then drain for `cluster.drain_s` at most.

    `listen`: HOST:PORT (port 0: the first free one of `cluster.ports`) or unix:PATH. `tell` hears
    `listening NAME ADDRESS`, and `ready NAME ADDRESS` once the model is loaded. Raises MediaError
    when it cannot listen there.
    """
    service = WorkerService(
        name, backend, Door(cluster.token), clock=clock, max_side=max_side, label=label
    )
    server = make_server(service)
    address = _listen(server, listen, cluster)
    await server.start()
    if address.startswith("unix:"):
        os.chmod(address.removeprefix("unix:"), 0o600)
    tell(f"listening {name} {address}")
    told = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        on_signal(sign, told.set)
    loading = asyncio.create_task(backend.start())
    ending = asyncio.create_task(told.wait())
    try:
        await asyncio.wait((loading, ending), return_when=asyncio.FIRST_COMPLETED)
        if loading.done() and backend.info().state is BackendState.READY:
            tell(f"ready {name} {address}")
        await told.wait()
        logger.info("worker %s drains", name)
        await service.drain(cluster.drain_s)
    finally:
        ending.cancel()
        loading.cancel()
        await server.stop(0.5)
        await backend.aclose()


def _listen(server: object, listen: str, cluster: ClusterConfig) -> str:
    """Bind; returns the address with the port that it became."""
    credentials = None if listen.startswith("unix:") else server_credentials(cluster)
    for address in _addresses(listen, cluster):
        try:
            if credentials is None:
                port = server.add_insecure_port(address)  # type: ignore[attr-defined]
            else:
                port = server.add_secure_port(address, credentials)  # type: ignore[attr-defined]
        except RuntimeError:
            continue
        if port:
            host = address.rpartition(":")[0]
            return address if address.startswith("unix:") else f"{host}:{port}"
    raise MediaError(f"cannot listen on {listen}: the address is taken, or not of this machine")


def _addresses(listen: str, cluster: ClusterConfig) -> list[str]:
    if listen.startswith("unix:"):
        Path(listen.removeprefix("unix:")).unlink(missing_ok=True)
        return [listen]
    host, port = split_address(listen)
    host = f"[{host}]" if ":" in host else host
    if port == 0 and cluster.ports:
        return [f"{host}:{p}" for p in range(cluster.ports[0], cluster.ports[1] + 1)]
    return [f"{host}:{port}"]
