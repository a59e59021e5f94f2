"""`streamlift worker`: serves one backend of this machine to services elsewhere."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib.util
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamlift.cli.exit_codes import OK
from streamlift.errors import ConfigError
from streamlift.lifeline import first_line, watch_lifeline

if TYPE_CHECKING:
    from streamlift.config import BackendConfig, Config

__all__ = ["add_worker"]


def add_worker(commands: Any, common: argparse.ArgumentParser) -> None:
    worker = commands.add_parser(
        "worker", parents=[common], help="serve one backend to services on other machines"
    )
    worker.add_argument("--backend", help="name in the configuration, or of an upscaler")
    worker.add_argument("--device", help="cpu, cuda:0, or a pattern such as 'RTX 5090'")
    worker.add_argument("--label", help="what to call the device, instead of its own name")
    worker.add_argument("--listen", default="127.0.0.1:8600", help="HOST:PORT or unix:PATH")
    worker.add_argument("--config", type=Path, help="YAML file, see configs/")
    worker.add_argument("--slots", type=int, help="capacity, instead of what is measured")
    worker.add_argument("--name", help="of this worker (default: cluster.name, or the host's)")
    worker.add_argument(
        "--make-cert",
        type=Path,
        metavar="DIR",
        help="write a self-signed certificate and its key, print the fingerprint, and end",
    )
    worker.add_argument("--lifeline", action="store_true", help=argparse.SUPPRESS)
    worker.set_defaults(run=_worker, endless=True)


def _worker(arguments: argparse.Namespace) -> int:
    for module in ("grpc", "cryptography"):
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"a worker needs {module}: pip install 'streamlift[server,cluster]'", found=None
            )
    if arguments.make_cert is not None:
        return _make_certificate(arguments.make_cert)
    from streamlift.cluster.process import check_worker_exposure, run_worker

    config, backend = _given(arguments)
    check_worker_exposure(arguments.listen, config.cluster)
    if arguments.lifeline:
        watch_lifeline()
    asyncio.run(_run(run_worker, arguments, config, backend))
    return _end()


async def _run(
    run_worker: Any, arguments: argparse.Namespace, config: Config, backend: BackendConfig
) -> None:
    from streamlift.clock import MonotonicClock
    from streamlift.engine import EngineBackend, accelerators
    from streamlift.engine.cuda_stream import CudaPriority
    from streamlift.frames import Stabilise

    clock = MonotonicClock()
    # In a thread: whoever dials meanwhile is to hear that it is loading.
    present = () if backend.device == "cpu" else await asyncio.to_thread(accelerators)
    engine = EngineBackend(
        backend.name,
        backend.upscaler,
        device=backend.device,
        slots=backend.slots,
        settings=backend.settings,
        default_stabilise=Stabilise(backend.stabilise),
        cuda_priority=CudaPriority(backend.cuda_priority),
        preset=config.encode.preset,
        max_age_s=config.ingest.max_age_ms / 1000,
        clock=clock,
        present=present,
        exits_when_stuck=True,
        scale=backend.scale,
    )
    await run_worker(
        arguments.name or config.cluster.name or socket.gethostname(),
        engine,
        arguments.listen,
        config.cluster,
        clock=clock,
        max_side=config.ingest.max_size,
        tell=lambda line: print(line, flush=True),
        label=arguments.label,
    )


def _given(arguments: argparse.Namespace) -> tuple[Config, BackendConfig]:
    """The configuration and the backend to serve, with what the command line says of it."""
    from streamlift.config import BackendConfig, load_config

    if arguments.lifeline:
        overrides = json.loads(first_line())
        config = load_config(None, {}, overrides)
        return config, config.named_backends[0]
    config = load_config(arguments.config, os.environ)
    wanted = arguments.backend
    named = {b.name: b for b in config.named_backends}
    if wanted is None:
        if config.backends is None or len(config.backends) != 1:
            raise ConfigError("say which backend: --backend NAME", expected=sorted(named))
        (backend,) = config.backends
    else:
        backend = named.get(wanted) or BackendConfig(wanted, wanted)
    changes: dict[str, Any] = {
        key: value
        for key, value in (("device", arguments.device), ("slots", arguments.slots))
        if value is not None
    }
    return config, dataclasses.replace(backend, **changes)


def _make_certificate(directory: Path) -> int:
    from streamlift.cluster.trust import make_certificate

    certificate, key, fingerprint = make_certificate(directory)
    print(f"certificate  {certificate}")
    print(f"key          {key}")
    print(f"fingerprint  {fingerprint}")
    return OK


def _end() -> int:
    """A model that does not return keeps its thread, and Python would wait for it."""
    from streamlift.engine import left_behind

    if left_behind():
        sys.stdout.flush()
        os._exit(OK)
    return OK
