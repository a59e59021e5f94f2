"""The worker: one backend of this process behind the service of worker.proto."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from streamlift import __version__
from streamlift.clock import Clock
from streamlift.cluster.serving_lane import ServedLane
from streamlift.cluster.trust import Door
from streamlift.cluster.wire import convert
from streamlift.cluster.wire import worker_pb2 as pb
from streamlift.engine import EngineBackend
from streamlift.errors import StreamliftError, WorkerDraining
from streamlift.frames import BackendState, Codec

__all__ = ["SERVICE", "Versions", "WorkerService", "make_server"]

logger = logging.getLogger(__name__)

SERVICE = "streamlift.worker.v1.Worker"
FIRST_MESSAGE_S = 2.0
STATUS_S = 1.0
Versions = tuple[int, int]
"""The newest and the oldest version of the wire."""


class WorkerService:
    """Serves lanes of one backend to any number of anchors; the worker alone owns its slots.

    `label`: what to call the device, instead of its own name.
    """

    def __init__(
        self,
        name: str,
        backend: EngineBackend,
        door: Door,
        *,
        clock: Clock,
        max_side: int,
        label: str | None = None,
        versions: Versions = (convert.PROTOCOL, convert.OLDEST),
    ) -> None:
        self.name = name
        self._backend = backend
        self._door = door
        self._clock = clock
        self._max_side = max_side
        self._label = label
        self._versions = versions
        self._instance = secrets.token_hex(8)
        self._lanes: set[ServedLane] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._changed = asyncio.Event()
        self._until_s: float | None = None  # when it ends, once it is draining
        self.rejected = 0  # calls that did not begin as they must

    # ---- draining ----

    @property
    def draining(self) -> bool:
        return self._until_s is not None

    @property
    def ready(self) -> bool:
        """Whether it takes lanes; for grpc.health.v1."""
        return not self.draining and self._backend.info().state is BackendState.READY

    async def drain(self, seconds: float) -> None:
        """Take no more lanes; returns when the last one has gone, or `seconds` are over."""
        self._until_s = self._clock.now_s() + seconds
        self._changed.set()
        # Anchors hear of it first: one that has just been given a place would come back at once.
        await asyncio.sleep(0.2)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        for lane in tuple(self._lanes):
            lane.end(WorkerDraining(f"worker {self.name} ends"))
        if self._lanes:
            await asyncio.sleep(0.2)  # what they say of it goes out

    # ---- the service ----

    async def attach(self, _: Any, context: grpc.aio.ServicerContext) -> None:
        await self._door.admit(context)
        message = await self._first(context, pb.FromAnchor.FromString)
        if message.WhichOneof("kind") != "hello":
            await self._reject(context, "protocol: the first message must be Hello")
        hello = message.hello
        newest, oldest = self._versions
        version = convert.common_version(hello.protocol, hello.oldest, newest, oldest)
        if not version:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"version: worker speaks {_range(oldest, newest)}, "
                f"anchor {_range(hello.oldest, hello.protocol)}",
            )
        logger.info("anchor %.64s attached from %s", hello.anchor, context.peer())
        await context.write(self._welcome(version))
        echoes: asyncio.Queue[int] = asyncio.Queue(16)
        reading = asyncio.create_task(self._read_echoes(context, echoes))
        try:
            await self._tell(context, echoes, reading)
        finally:
            reading.cancel()
            logger.info("anchor %.64s is gone", hello.anchor)

    async def lane(self, _: Any, context: grpc.aio.ServicerContext) -> None:
        await self._door.admit(context)
        message = await self._first(context, pb.ToLane.FromString)
        if message.WhichOneof("kind") != "open":
            await self._reject(context, "protocol: the first message must be Open")
        lane = ServedLane(self._backend, self._clock, self._max_side)
        try:
            if self.draining:
                raise WorkerDraining(f"worker {self.name} is draining")
            await lane.open(message.open)
        except StreamliftError as error:
            denied = pb.FromLane(denied=convert.denied_message(error))
            await context.write(denied.SerializeToString())
            return
        self._lanes.add(lane)
        self._empty.clear()
        self._changed.set()
        try:
            await lane.serve(context)
        finally:
            self._lanes.discard(lane)
            self._changed.set()
            if not self._lanes:
                self._empty.set()

    async def probe(self, _: Any, context: grpc.aio.ServicerContext) -> bytes:
        await self._door.admit(context)
        try:
            await self._backend.probe()
        except Exception as error:  # noqa: BLE001 - whatever a model may raise is the answer
            return bytes(convert.ended_message(error).SerializeToString())
        return bytes(pb.Ended().SerializeToString())

    # ---- parts ----

    async def _first(self, context: grpc.aio.ServicerContext, parse: Callable[[bytes], Any]) -> Any:
        """The first message, which must come soon and be small."""
        try:
            async with asyncio.timeout(FIRST_MESSAGE_S):
                data = await context.read()
        except TimeoutError:
            await self._reject(context, f"no message within {FIRST_MESSAGE_S:g} s")
        if data is grpc.aio.EOF or len(data) > convert.HELLO_BYTES:
            await self._reject(context, f"protocol: expected {convert.HELLO_BYTES} bytes at most")
        try:
            return parse(data)
        except DecodeError:
            await self._reject(context, "protocol: not a message of worker.proto")

    async def _reject(self, context: grpc.aio.ServicerContext, why: str) -> None:
        self.rejected += 1
        logger.warning("a call from %s was refused: %s", context.peer(), why)
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, why)

    def _welcome(self, version: int) -> bytes:
        welcome = pb.Welcome(
            protocol=version,
            worker=self.name,
            instance=self._instance,
            backend=self._backend.name,
            upscaler=self._backend.info().upscaler,
            codecs=[*Codec],
            max_side=self._max_side,
            software=__version__,
        )
        return bytes(pb.FromWorker(welcome=welcome).SerializeToString())

    async def _tell(
        self,
        context: grpc.aio.ServicerContext,
        echoes: asyncio.Queue[int],
        reading: asyncio.Task[None],
    ) -> None:
        """Status on each change and each second, echoes at once; until the anchor is gone."""
        told: pb.Status | None = None
        told_s, drained = float("-inf"), False
        counted = self._counts()
        while not reading.done():
            while not echoes.empty():
                echo = pb.Echo(number=echoes.get_nowait())
                await context.write(pb.FromWorker(echo=echo).SerializeToString())
            status = convert.status_message(
                self._backend, label=self._label, draining=self.draining
            )
            now_s = self._clock.now_s()
            if status != told or now_s - told_s >= STATUS_S:
                told, told_s = status, now_s
                await context.write(pb.FromWorker(status=status).SerializeToString())
                if (stats := self._stats(counted)) is not None:
                    await context.write(pb.FromWorker(stats=stats).SerializeToString())
            if self._until_s is not None and not drained:
                drained = True
                left = pb.Drain(seconds=max(0.0, self._until_s - now_s))
                await context.write(pb.FromWorker(drain=left).SerializeToString())
            await self._next(echoes, reading)

    def _counts(self) -> dict[str, int]:
        return {"token": self._door.refused, "protocol": self.rejected}

    def _stats(self, counted: dict[str, int]) -> pb.Stats | None:
        """What was counted since `counted`, which is brought up to now; None for nothing."""
        new = {reason: n - counted[reason] for reason, n in self._counts().items()}
        counted.update(self._counts())
        name = "link_messages_refused_total"
        rows = [
            pb.Stats.Row(name=name, labels={"reason": reason}, amount=n)
            for reason, n in new.items()
            if n
        ]
        return pb.Stats(rows=rows) if rows else None

    async def _next(self, echoes: asyncio.Queue[int], reading: asyncio.Task[None]) -> None:
        """Wait for something to tell, a tenth of a second at most."""
        waiting = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait((waiting, reading), timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        self._changed.clear()

    async def _read_echoes(
        self, context: grpc.aio.ServicerContext, echoes: asyncio.Queue[int]
    ) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            message = pb.FromAnchor.FromString(data)
            if message.WhichOneof("kind") == "echo" and not echoes.full():
                echoes.put_nowait(message.echo.number)
                self._changed.set()


def _range(oldest: int, newest: int) -> str:
    return str(newest) if oldest == newest else f"{oldest}-{newest}"


def make_server(service: WorkerService) -> grpc.aio.Server:
    """A server with the service and grpc.health.v1; add a port and start it."""
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", convert.WORKER_RECEIVES + 64 * 1024),
            ("grpc.keepalive_time_ms", 1000),
            ("grpc.keepalive_timeout_ms", 3000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 500),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.lookahead_bytes", 256 * 1024),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.max_frame_size", 1024 * 1024),
            ("grpc.max_concurrent_streams", 256),
            ("grpc.so_reuseport", 0),
        )
    )
    handlers = {
        "Attach": grpc.stream_stream_rpc_method_handler(service.attach),
        "Lane": grpc.stream_stream_rpc_method_handler(service.lane),
        "Probe": grpc.unary_unary_rpc_method_handler(service.probe),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    _add_health(server, service)
    return server


def _add_health(server: grpc.aio.Server, service: WorkerService) -> None:
    from grpc_health.v1 import health_pb2

    async def check(_: Any, context: grpc.aio.ServicerContext) -> Any:
        return health_pb2.HealthCheckResponse(status=status())

    async def watch(_: Any, context: grpc.aio.ServicerContext) -> None:
        told = None
        while True:
            if (now := status()) != told:
                told = now
                await context.write(health_pb2.HealthCheckResponse(status=now))
            await asyncio.sleep(0.5)

    def status() -> int:
        ready = service.ready
        return int(
            health_pb2.HealthCheckResponse.SERVING
            if ready
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )

    kinds = {
        "request_deserializer": health_pb2.HealthCheckRequest.FromString,
        "response_serializer": health_pb2.HealthCheckResponse.SerializeToString,
    }
    handlers = {
        "Check": grpc.unary_unary_rpc_method_handler(check, **kinds),
        "Watch": grpc.unary_stream_rpc_method_handler(watch, **kinds),
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),)
    )
