"""The composition root: builds the running service from a configuration."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from fastapi import FastAPI

from streamlift.api import create_api
from streamlift.clock import Clock, MonotonicClock
from streamlift.config import POLICIES, AuthConfig, BackendConfig, Config
from streamlift.demo import STREAM, Demo, run_demo
from streamlift.engine import Accelerator, EngineBackend, accelerators, accelerators_apart
from streamlift.engine.cpu_budget import CpuBudget, usable_cores
from streamlift.engine.cuda_stream import CudaPriority
from streamlift.errors import ConfigError
from streamlift.frames import Codec, Rendition, Stabilise
from streamlift.media.files.slate import slate
from streamlift.media.outgoing.packetizer import Packetizer
from streamlift.metrics import Metrics
from streamlift.routing import Backend, BackendTable, EventLog, Policy, Router, StreamSettings
from streamlift.service import (
    Downloads,
    FileJobs,
    Followers,
    Grants,
    Guesses,
    LoopWatch,
    Outputs,
    Pulls,
    RtspDoor,
    Service,
    Sessions,
    Snapshots,
    rtsp_socket,
)
from streamlift.tasks import supervise
from streamlift.upscalers.weights import WeightStore

if TYPE_CHECKING:
    from streamlift.cluster.placement import Placement

__all__ = ["create_app", "default_of"]

FALLBACK = "bicubic"
FALLBACK_AGE_S = 1.5


def create_app(
    config: Config,
    *,
    demo: Demo | None = None,
    clock: Clock | None = None,
    weights: WeightStore | None = None,
) -> FastAPI:
    """The service as an ASGI application. Nothing runs before its lifespan starts.

    `weights`: where those that are fetched while it runs go; by default the store that the
    environment names, where models look for theirs.
    """
    store = weights or WeightStore.from_environment(os.environ)
    time = clock or MonotonicClock()
    pulls = Pulls(config.sources, config.ice, max_side=config.ingest.max_size, clock=time)
    packetizer = Packetizer()
    outputs = Outputs(config.outputs, clock=time, packetizer=packetizer)
    readers = None if config.rtsp is None else rtsp_socket(config.rtsp)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        metrics, events = Metrics(), EventLog()
        present = await asyncio.to_thread(_accelerators_for, config)
        backends = _build_backends(config, time, present, metrics)
        default, policy = default_of(config, backends)
        async with asyncio.TaskGroup() as tasks:
            table = BackendTable(backends.values(), clock=time, fallback=FALLBACK)
            router = Router(
                table,
                default,
                clock=time,
                metrics=metrics,
                tasks=tasks,
                settings=_stream_settings(config),
                policy=policy,
                events=events,
                slate=slate,
            )
            downloads = Downloads(
                store,
                table,
                allowed=config.weights.download,
                metrics=metrics,
                events=events,
                tasks=tasks,
                elsewhere=_elsewhere(config),
            )
            files = FileJobs(config.files, clock=time, metrics=metrics)
            service = Service(
                config=config,
                clock=time,
                metrics=metrics,
                router=router,
                events=events,
                pulls=pulls,
                outputs=outputs,
                sessions=Sessions(time, config.limits),
                grants=Grants(config.auth),
                guesses=Guesses(time),
                followers=Followers(config.limits.events_per_token),
                snapshots=Snapshots(router, tasks),
                downloads=downloads,
                files=files,
                packetizer=packetizer,
                tasks=tasks,
            )
            app.state.service = service
            # The default backend first: a stream may come as soon as the port is open.
            await backends[default].start()
            loading = [
                tasks.create_task(supervise(f"backend {name}", backend.start()))
                for name, backend in backends.items()
                if name != default
            ]
            attending = [
                tasks.create_task(supervise("outputs", service.attend_outputs())),
                tasks.create_task(supervise("grants", service.attend_grants())),
                tasks.create_task(supervise("weights", downloads.attend())),
                tasks.create_task(supervise("event loop watch", LoopWatch(metrics).run())),
            ]
            if placement := _placement(config, backends, time, metrics):
                service.no_new_workers = lambda: placement.reason
                attending.append(tasks.create_task(supervise("placement", placement.run())))
            working = None
            if config.files is not None:
                working = tasks.create_task(supervise("files", files.run()))
            rtsp = None
            if readers is not None:
                rtsp = RtspDoor(service, readers)
                await rtsp.listen()
            app.state.rtsp = rtsp
            if demo is not None:
                token = _publish_token(config.auth, STREAM)
                attending.append(tasks.create_task(supervise("demo", run_demo(demo, token))))
            await asyncio.sleep(0)  # what is cancelled before it began would never be awaited
            yield
            service.drain()
            downloads.end()
            if rtsp is not None:
                await rtsp.aclose()
            for task in (*attending, *loading):
                task.cancel()
            if working is not None:
                working.cancel()
                await asyncio.wait([working])
                await files.aclose()
            await service.router.aclose()
            outputs.end_pushes()
            for session in service.sessions:
                await session.peer.aclose("service is shutting down")
        await asyncio.gather(*(backend.aclose() for backend in backends.values()))

    return create_api(config, lifespan)


def _accelerators_for(config: Config) -> tuple[Accelerator, ...]:
    """The CUDA devices, if a backend here may run on one: to look costs torch and memory on each.

    Where nothing is configured, it only matters whether there is one; backends in processes of
    their own look for themselves.
    """
    if config.backends is None:
        return accelerators_apart() if link_of(_ANY_GPU) == "process" else accelerators()
    if any(b.device != "cpu" and link_of(b) == "inproc" for b in config.backends):
        return accelerators()
    return ()


_ANY_GPU = BackendConfig("gpu", "gpu", device="cuda")


def _placement(
    config: Config, backends: Mapping[str, Backend], clock: Clock, metrics: Metrics
) -> Placement | None:
    """What looks for workers elsewhere, if anything is to."""
    if not config.cluster.placement.startswith("ray://"):
        return None
    from streamlift.cluster.placement import placement_by_ray

    return placement_by_ray(config, backends, clock, metrics)


def link_of(backend: BackendConfig) -> Literal["inproc", "process", "remote"]:
    """Where a backend runs: as configured, else a GPU's in a process of its own, if that can be.

    A crash or a hang of CUDA then ends that process, not the service.
    """
    if backend.link is not None:
        return backend.link
    apart = backend.device != "cpu" and backend.name != FALLBACK and sys.platform != "win32"
    return "process" if apart and importlib.util.find_spec("grpc") is not None else "inproc"


def _elsewhere(config: Config) -> frozenset[str]:
    """Backends whose models other machines load."""
    remote = (b for b in config.named_backends if link_of(b) == "remote")
    return frozenset(b.name for b in remote if config.cluster.placement != "local")


def _build_backends(
    config: Config, clock: Clock, present: tuple[Accelerator, ...], metrics: Metrics
) -> dict[str, Backend]:
    chosen = config.named_backends
    if present and config.backends is None:
        chosen = (*_gpu_backends(present[0]), *chosen)
    wanted = {backend.name: backend for backend in chosen}
    # What streams fall back to must always be there.
    wanted.setdefault(FALLBACK, BackendConfig(name=FALLBACK, upscaler="bicubic"))
    budget = CpuBudget(usable_cores(), clock)
    return {
        name: _build_backend(b, config, clock, present, metrics, budget)
        for name, b in wanted.items()
    }


def _gpu_backends(gpu: Accelerator) -> tuple[BackendConfig, ...]:
    """What a GPU adds when no backends are configured; without weights or package they say so."""
    return (
        BackendConfig("flashvsr", "flashvsr", device=gpu.device),
        BackendConfig("swiftvr", "swiftvr", device=gpu.device),
        BackendConfig("realesrgan-x2", "realesrgan-x2", device=gpu.device, stabilise="strong"),
        BackendConfig("rtx-vsr", "rtx-vsr", device=gpu.device),
    )


def default_of(config: Config, backends: Collection[str]) -> tuple[str, Policy]:
    """The backend that must be ready first, and the policy that new streams start with.

    Where nothing is configured the policy chooses: the best that is here, and for one stream
    more than that can hold, the next best instead of a refusal.
    """
    named = config.named_default
    if named in POLICIES:
        return ("compact" if "compact" in backends else FALLBACK), Policy(named)
    untouched = config.default_backend is None and config.backends is None
    return named, Policy.AUTO if untouched else Policy.FIXED


def _build_backend(
    backend: BackendConfig,
    config: Config,
    clock: Clock,
    present: tuple[Accelerator, ...],
    metrics: Metrics,
    budget: CpuBudget,
) -> Backend:
    if (link := link_of(backend)) != "inproc":
        try:
            from streamlift.cluster import build_worker_backend
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"backends.{backend.name}.link {link} needs {error.name}: "
                "pip install 'streamlift[server,cluster]'",
                found=link,
            ) from error
        linked = dataclasses.replace(backend, link=link)
        return build_worker_backend(linked, config, clock, metrics)
    return EngineBackend(
        backend.name,
        backend.upscaler,
        device=backend.device,
        slots=backend.slots,
        settings=backend.settings,
        default_stabilise=Stabilise(backend.stabilise),
        cuda_priority=CudaPriority(backend.cuda_priority),
        preset=config.encode.preset,
        max_age_s=config.ingest.max_age_ms / 1000,
        # The fallback is handed what a failed lane still owed, which may be old already.
        backlog_age_s=FALLBACK_AGE_S if backend.name == FALLBACK else None,
        clock=clock,
        present=present,
        budget=budget,
        scale=backend.scale,
    )


def _publish_token(auth: AuthConfig, stream: str) -> str | None:
    """One that the service itself can publish this stream with; None where none is needed."""
    for token in auth.publish:
        if isinstance(token, str):
            return token
        if token.streams is None or stream in token.streams:
            return token.token
    return None


def _stream_settings(config: Config) -> StreamSettings:
    encode = config.encode
    profile = encode.profile if encode.codec == Codec.H264 else ""
    return StreamSettings(
        rendition=Rendition(Codec(encode.codec), encode.bitrate_bps, profile),
        takeover=config.ingest.takeover,
        waiting_s=config.ingest.absence_s,
        max_age_s=config.ingest.max_age_ms / 1000,
    )
