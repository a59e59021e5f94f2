"""One link from an anchor to one worker: it attaches, hears how the worker is, and opens lanes.

All lanes of a link end with one reason when it breaks.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import grpc

from streamlift import __version__
from streamlift.clock import Clock
from streamlift.cluster.choice import Strikes
from streamlift.cluster.lane import LinkLane, Traffic
from streamlift.cluster.trust import Trust, host_of, open_channel
from streamlift.cluster.units import UnitPlan
from streamlift.cluster.wire import convert
from streamlift.cluster.wire import worker_pb2 as pb
from streamlift.errors import MediaError, NotReady, StreamliftError, WorkerDraining, WorkerLost
from streamlift.frames import Codec, LaneOptions, Size, Slots, WorkerInfo
from streamlift.metrics import Metrics

__all__ = ["STATES", "Link"]

logger = logging.getLogger(__name__)

ECHO_S, SILENT_S = 1.0, 3.0
WELCOME_S = 3.0
OPEN_S = 2.0
REDIAL_S, LONGEST_REDIAL_S = 0.5, 30.0
REFUSED_S = 30.0
"""Before a worker that refused is asked again."""
LEAVE_S = 0.2
"""Between two lanes that leave a draining worker."""
STAY_S = 3.0
"""How long a lane may take to be followed by one on another worker."""
STATES = ("ready", "draining", "loading", "unavailable")
"""Of a worker, better ones first."""
_SERVICE = "/streamlift.worker.v1.Worker/"
_REFUSALS = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


class Link:
    """Keeps one worker attached; `run` dials again for as long as it is not cancelled.

    `ready_to_dial` waits until there is something to dial (a process that listens); `why_lost` may
    know better than the connection what became of the worker, within a tenth of a second;
    `on_silent` is called when the worker has not answered for 3 s.
    """

    def __init__(
        self,
        name: str,
        address: str,
        trust: Trust,
        *,
        backend: str,
        anchor: str,
        units: bool,
        clock: Clock,
        metrics: Metrics,
        ready_to_dial: Callable[[], Awaitable[None]] | None = None,
        why_lost: Callable[[], Awaitable[StreamliftError | None]] | None = None,
        on_silent: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.strikes = Strikes()
        self.restarts: Mapping[str, int] = {}
        self.attached = asyncio.Event()
        self.versions = (convert.PROTOCOL, convert.OLDEST)
        self._trust = trust
        self._backend = backend
        self._anchor = anchor
        self._units = units
        self._clock = clock
        self._metrics = metrics
        self._ready_to_dial = ready_to_dial
        self._why_lost = why_lost
        self._on_silent = on_silent
        self._channel: grpc.aio.Channel | None = None
        self._welcome: pb.Welcome | None = None
        self._status = pb.Status(state="loading", reason="not yet connected")
        self._rtt_s: float | None = None
        self._echoed: tuple[int, float] | None = None  # the number that is out, and since when
        self._traffic = Traffic()
        self._lanes: set[LinkLane] = set()
        self._leaving: asyncio.Task[None] | None = None

    # ---- what others ask ----

    @property
    def host(self) -> str:
        return host_of(self.address)

    @property
    def state(self) -> str:
        return str(self._status.state)

    @property
    def free(self) -> int:
        return int(self._status.slots_total) - int(self._status.slots_used)

    @property
    def lanes(self) -> frozenset[LinkLane]:
        return frozenset(self._lanes)

    def info(self) -> WorkerInfo:
        status = self._status
        return WorkerInfo(
            name=self.name if self._welcome is None else self._welcome.worker or self.name,
            address=self.address,
            state=status.state,
            reason=status.reason,
            device=status.device,
            fps=status.fps if status.HasField("fps") else None,
            slots=Slots(status.slots_total, status.slots_used),
            rtt_s=self._rtt_s,
            restarts=dict(self.restarts),
            bytes={"in": self._traffic.received, "out": self._traffic.sent},
        )

    def say(self, reason: str) -> None:
        """Why there is no worker now, if there is none."""
        if self._welcome is None:
            self._status = pb.Status(
                state="unavailable", reason=reason[:1000], device=self._status.device
            )

    async def open_lane(self, size: Size, options: LaneOptions) -> LinkLane:
        """Raises NoCapacity, NotReady, MediaError, or WorkerLost."""
        welcome = self._welcome
        if self._channel is None or welcome is None:
            raise NotReady(f"worker {self.name} is not connected: {self._status.reason}")
        call = self._channel.stream_stream(
            _SERVICE + "Lane", response_deserializer=pb.FromLane.FromString
        )(metadata=self._trust.metadata)
        try:
            async with asyncio.timeout(OPEN_S):
                opening = pb.ToLane(open=convert.open_message(size, options))
                await call.write(opening.SerializeToString())
                answer = await call.read()
        except (grpc.RpcError, asyncio.InvalidStateError, TimeoutError) as error:
            call.cancel()
            raise WorkerLost(f"worker {self.name} opens no lane: {_words(error)}") from error
        except asyncio.CancelledError:
            call.cancel()
            raise self._broke_off() from None
        except BaseException:
            call.cancel()
            raise
        if answer is grpc.aio.EOF or not answer.HasField("opened"):
            call.cancel()
            denied = pb.Denied() if answer is grpc.aio.EOF else answer.denied
            raise convert.refusal_of(denied)
        if self._welcome is not welcome:  # the link broke since the answer came
            call.cancel()
            raise WorkerLost(f"worker {self.name} is gone")
        codecs = [Codec(c) for c in welcome.codecs if c in [*Codec]] if self._units else []
        lane = LinkLane(
            call,
            options,
            UnitPlan(codecs),
            worker=self.name,
            clock=self._clock,
            metrics=self._metrics,
            traffic=self._traffic,
            may_be_slow=not self.address.startswith("unix:"),
            on_close=self._lane_closed,
        )
        self._lanes.add(lane)
        return lane

    async def probe(self) -> None:
        """Raises what the worker's own trial raises."""
        if self._channel is None:
            raise NotReady(f"worker {self.name} is not connected")
        probe = self._channel.unary_unary(
            _SERVICE + "Probe", response_deserializer=pb.Ended.FromString
        )
        try:
            ended = await probe(b"", timeout=60.0, metadata=self._trust.metadata)
        except grpc.RpcError as error:
            raise WorkerLost(_words(error)) from error
        except asyncio.CancelledError:
            raise self._broke_off() from None
        if (fault := convert.error_of(ended)) is not None:
            raise fault

    def _broke_off(self) -> BaseException:
        """What a CancelledError in a call means: to close the channel cancels its calls, which
        looks like a cancellation of whoever waits for them."""
        task = asyncio.current_task()
        if task is None or task.cancelling():
            return asyncio.CancelledError()
        return WorkerLost(f"worker {self.name} is gone")

    # ---- its life ----

    async def run(self) -> None:
        """Attach, again and again; ends by cancellation."""
        wait_s = REDIAL_S
        while True:
            if self._ready_to_dial is not None:
                await self._ready_to_dial()
            refused, began_s = False, self._clock.now_s()
            try:
                await self._attach()
                error: StreamliftError = WorkerLost("the worker closed the link")
            except grpc.RpcError as failure:
                refused = failure.code() in _REFUSALS
                error = WorkerLost(_words(failure))
            except StreamliftError as failure:
                error = failure
            except Exception as failure:
                # Broad on purpose: whatever it is, lanes must end, and it must be dialled again.
                logger.exception("link to worker %s failed", self.name)
                error = WorkerLost(f"the link failed: {failure}")
            finally:
                was_attached = self._welcome is not None
                await self._detach()
            if self._why_lost is not None and was_attached:
                error = await self._why_lost() or error
            self._broke(error)
            if was_attached and self._clock.now_s() - began_s > LONGEST_REDIAL_S:
                wait_s = REDIAL_S
            if self._ready_to_dial is None:
                await asyncio.sleep((REFUSED_S if refused else wait_s) * random.uniform(0.8, 1.2))  # noqa: S311  spreads redials, no secret
                wait_s = REDIAL_S if was_attached else min(2 * wait_s, LONGEST_REDIAL_S)
            else:
                await asyncio.sleep(0.05)

    async def _attach(self) -> None:
        self._channel = await open_channel(self.address, self._trust, convert.ANCHOR_RECEIVES)
        call = self._channel.stream_stream(
            _SERVICE + "Attach", response_deserializer=pb.FromWorker.FromString
        )(metadata=self._trust.metadata)
        newest, oldest = self.versions
        hello = pb.Hello(protocol=newest, oldest=oldest, anchor=self._anchor, software=__version__)
        try:
            async with asyncio.timeout(WELCOME_S):
                await call.write(pb.FromAnchor(hello=hello).SerializeToString())
                first = await call.read()
        except TimeoutError as error:
            call.cancel()
            raise WorkerLost(f"{self.address} does not answer") from error
        except asyncio.InvalidStateError as error:
            raise WorkerLost(f"{self.address} ended the call") from error
        if first is grpc.aio.EOF or not first.HasField("welcome"):
            call.cancel()
            raise WorkerLost(f"{self.address} is no worker")
        self._check(first.welcome)
        self._welcome = first.welcome
        echoing = asyncio.create_task(self._echo(call))
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                self._hear(message)
        except asyncio.CancelledError:
            if not echoing.done() or echoing.cancelled():
                raise
            # It cancelled the call, which looks the same from here.
            raise WorkerLost(f"worker {self.name} does not answer: {SILENT_S:g} s") from None
        finally:
            echoing.cancel()
            call.cancel()

    def _check(self, welcome: pb.Welcome) -> None:
        if welcome.backend != self._backend:
            raise WorkerLost(
                f"{self.address} is a worker of backend {welcome.backend!r:.80}",
                found=welcome.backend,
                expected=self._backend,
            )

    def _hear(self, message: pb.FromWorker) -> None:
        match message.WhichOneof("kind"):
            case "status":
                self._status = message.status
                if self._status.state not in STATES:  # of a later version, or nonsense
                    found, self._status.state = self._status.state, "unavailable"
                    self._status.reason = f"its state is not known here: {found!r:.80}"
                self.attached.set()
            case "drain":
                self._status.state = "draining"
                self._status.reason = "draining"
                if self._leaving is None:
                    self._leaving = asyncio.create_task(self._leave(message.drain.seconds))
            case "stats":
                for row in message.stats.rows[:200]:
                    if row.name == "link_messages_refused_total" and row.amount > 0:
                        reason = "token" if row.labels.get("reason") == "token" else "protocol"
                        self._metrics.count(row.name, row.amount, reason=reason)
            case "echo":
                if self._echoed is not None and self._echoed[0] == message.echo.number:
                    self._rtt_s = self._clock.now_s() - self._echoed[1]
                    self._echoed = None

    async def _echo(self, call: grpc.aio.StreamStreamCall) -> None:
        """Ask for an answer each second; returns, the call cancelled, when none came for long."""
        number = 0
        with suppress(grpc.RpcError, asyncio.InvalidStateError, TimeoutError):
            while self._echoed is None or self._clock.now_s() - self._echoed[1] < SILENT_S:
                if self._echoed is None:
                    number += 1
                    self._echoed = (number, self._clock.now_s())
                    echo = pb.FromAnchor(echo=pb.Echo(number=number))
                    # A worker that reads nothing blocks this as well.
                    async with asyncio.timeout(SILENT_S):
                        await call.write(echo.SerializeToString())
                await asyncio.sleep(ECHO_S)
        if self._echoed is not None and self._clock.now_s() - self._echoed[1] >= SILENT_S:
            if self._on_silent is not None:
                self._on_silent()
            call.cancel()

    async def _detach(self) -> None:
        channel, self._channel = self._channel, None
        self._welcome, self._echoed, self._rtt_s = None, None, None
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if channel is not None:
            self._closing = asyncio.create_task(channel.close())

    def _broke(self, error: StreamliftError) -> None:
        self.say(str(error))
        self.attached.set()
        if self._lanes:
            logger.warning("worker %s: %d lanes are lost: %s", self.name, len(self._lanes), error)
        for lane in tuple(self._lanes):
            lane.end(error)

    async def _leave(self, seconds: float) -> None:
        """The worker is about to end: its lanes leave one after another, not all at once.

        Each is followed by one on another worker of the backend, where there is one, and goes to
        the fallback where that took too long.
        """
        begun: list[LinkLane] = []
        for lane in sorted(self._lanes, key=id):
            lane.leaving = True
            begun.append(lane)
            await asyncio.sleep(LEAVE_S)
        await asyncio.sleep(min(STAY_S, max(0.0, seconds - 1.0 - LEAVE_S * len(begun))))
        for lane in begun:
            if not lane.over:
                lane.end(WorkerDraining(f"worker {self.name} ends"))
                await asyncio.sleep(LEAVE_S)

    def _lane_closed(self, lane: LinkLane, error: StreamliftError | None) -> None:
        self._lanes.discard(lane)
        # What a publisher sends is not the worker's failure, and a guest's lane comes after all
        # others: what becomes of it says little.
        if lane.guest or error is None:
            return
        if not isinstance(error, WorkerDraining | MediaError):
            self.strikes.strike(self._clock.now_s())

    async def aclose(self) -> None:
        """Call it when `run` has ended."""
        for lane in tuple(self._lanes):
            lane.end(WorkerLost("the service is shutting down"))
        closing = getattr(self, "_closing", None)
        if closing is not None:
            await asyncio.wait([closing], timeout=1.0)


def _words(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.details() or error.code().name.lower()}"
    return str(error) or "no answer"
