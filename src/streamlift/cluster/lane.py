"""A lane on a worker, seen from the anchor: fits `routing.ports.Lane`."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import grpc

from streamlift.clock import Clock
from streamlift.cluster.units import UnitPlan
from streamlift.cluster.wire import convert
from streamlift.cluster.wire import worker_pb2 as pb
from streamlift.errors import MediaError, StreamliftError, WorkerLost
from streamlift.frames import EncodedFrame, Frame, LaneOptions, Rendition, Unencoded
from streamlift.mailbox import Mailbox
from streamlift.metrics import Metrics

__all__ = ["LinkLane", "Traffic"]

logger = logging.getLogger(__name__)

LATE_S = 0.5
SLOW_S = 1.0
"""How long a link between machines may be late before the lane gives up."""
_WAITING = 64
_SMALL = 640 * 640
"""Pixels of a picture that is packed on the event loop: a tenth of a millisecond or two."""
_OUT_BOUND = 128
_KNOWN = 512
_LAST_WORD_S = 0.2
"""How long the link may take to say why it broke, before the lane ends without knowing."""


class Traffic:
    """Bytes over a link, counted by its lanes."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.sent = self.received = 0


class LinkLane:
    """Frames go up as access units where the plan allows it, as pictures otherwise.

    `offer` never waits: what waits here or is on its way and has not reached the worker within half
    a second makes the link busy, and new frames are dropped (`link_busy`); a second of that ends
    the lane with WorkerLost, as does a second in which what comes back was on its way for half
    one. Not on a link within a machine (`may_be_slow`): there it is the processor that is busy.
    """

    def __init__(
        self,
        call: Any,
        options: LaneOptions,
        plan: UnitPlan,
        *,
        worker: str,
        clock: Clock,
        metrics: Metrics,
        traffic: Traffic,
        may_be_slow: bool,
        on_close: Callable[[LinkLane, StreamliftError | None], None],
    ) -> None:
        self.worker = worker
        self.leaving = False
        self.guest = options.guest
        self._call = call
        self._options = options
        self._plan = plan
        self._clock = clock
        self._metrics = metrics
        self._traffic = traffic
        self._may_be_slow = may_be_slow
        self._on_close = on_close
        self._waiting: deque[pb.ToLane | tuple[Frame, bool]] = deque()
        self._wake = asyncio.Event()
        self._way: deque[tuple[int, float]] = deque(maxlen=_KNOWN)  # pts, when it was offered
        self._frames: dict[int, tuple[float, float, float]] = {}  # by pts
        self._out: Mailbox[EncodedFrame | Unencoded] = Mailbox(_OUT_BOUND)
        self._told = pb.Returned()
        self._heard_s = clock.now_s()
        self._link_busy = 0
        self._late_since_s: dict[str, float] = {}  # by direction
        self._over = False
        self._finished = False
        self._error: StreamliftError | None = None
        loop = asyncio.get_running_loop()
        self._tasks = (loop.create_task(self._read()), loop.create_task(self._write()))
        for task in self._tasks:
            task.add_done_callback(self._part_ended)

    # ---- ports.Lane ----

    @property
    def upscaled(self) -> int:
        return int(self._told.upscaled)

    @property
    def dropped(self) -> Mapping[str, int]:
        dropped = {reason: int(n) for reason, n in self._told.dropped.items()}
        if self._link_busy:
            dropped["link_busy"] = dropped.get("link_busy", 0) + self._link_busy
        if self._out.dropped:
            dropped["undelivered"] = dropped.get("undelivered", 0) + self._out.dropped
        return dropped

    @property
    def degraded(self) -> bool:
        return bool(self._told.degraded)

    @property
    def can_spend_less(self) -> bool:
        return bool(self._told.can_spend_less)

    @property
    def stuck_s(self) -> float:
        """The worker reports each tenth of a second: its silence counts as being stuck."""
        return float(self._told.stuck_s) + self._clock.now_s() - self._heard_s

    def offer(self, frame: Frame) -> bool:
        if self._over or self._finished:
            return False
        now_s = self._clock.now_s()
        late = bool(self._way) and now_s - self._way[0][1] > LATE_S
        full = sum(isinstance(item, tuple) for item in self._waiting) >= _WAITING
        self._note_late("up", late, now_s)
        if late or full:
            self._link_busy += 1
            self._plan.broken()
            return False
        as_unit = self._plan.sends_unit(frame, now_s)
        if self._plan.ask:
            self._options.ask_source()
        self._way.append((frame.pts, now_s))
        self._frames[frame.pts] = (frame.arrived_s, frame.decode_s, now_s)
        if len(self._frames) > _KNOWN:
            del self._frames[next(iter(self._frames))]
        self._metrics.count("lane_input_total", kind="unit" if as_unit else "picture")
        self._put((frame, as_unit))
        return True

    def finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._put(pb.ToLane(finish=pb.Finish()))

    def park(self) -> None:
        self._put(pb.ToLane(park=pb.Park()))

    def set_renditions(self, wanted: frozenset[Rendition]) -> None:
        self._put(pb.ToLane(renditions=convert.renditions_message(wanted)))

    def request_keyframe(self) -> None:
        self._put(pb.ToLane(keyframe=pb.Keyframe()))

    def __aiter__(self) -> AsyncIterator[EncodedFrame | Unencoded]:
        return self._out

    async def aclose(self) -> None:
        """Ends the call; the worker closes its side when it hears of it. Never waits."""
        self._close(None)

    # ---- for the link ----

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it."""
        return self._over

    def hung(self) -> None:
        """Tell the worker that it hangs: whether it is to blame, and its process is to end, is for
        the worker to find out."""
        self._put(pb.ToLane(hung=pb.Hung()))

    def end(self, error: StreamliftError | None) -> None:
        """Its reader gets what has arrived, then the error. The first reason counts."""
        if not self._over:
            self._error = error
            self._out.end(error)
            self._close(error)

    def _close(self, error: StreamliftError | None) -> None:
        if self._over:
            return
        self._over = True
        self._out.end(error)
        self._call.cancel()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._waiting.clear()
        self._on_close(self, error)

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a lane on worker %s failed", self.worker, exc_info=error)
            self.end(WorkerLost(f"the link failed: {error}"))

    # ---- up ----

    def _put(self, item: pb.ToLane | tuple[Frame, bool]) -> None:
        if not self._over and len(self._waiting) < 4 * _WAITING:
            self._waiting.append(item)
            self._wake.set()

    async def _write(self) -> None:
        try:
            while True:
                while not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                data = await self._packed(self._waiting.popleft())
                self._traffic.sent += len(data)
                await self._call.write(data)
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # the call is over; the reader knows why

    async def _packed(self, item: pb.ToLane | tuple[Frame, bool]) -> bytes:
        if not isinstance(item, tuple):
            return bytes(item.SerializeToString())
        frame, as_unit = item
        if as_unit and frame.coded is not None:
            age_s = self._clock.now_s() - frame.late_after_s
            unit = convert.unit_message(frame, frame.coded, age_s)
            return bytes(pb.ToLane(unit=unit).SerializeToString())
        age_s = self._clock.now_s() - frame.late_after_s
        if frame.planes.y.size <= _SMALL:
            # One copy, as gRPC makes another: a thread would cost more than it takes off the loop.
            return convert.picture_bytes(frame, age_s)
        return await asyncio.to_thread(convert.picture_bytes, frame, age_s)

    # ---- down ----

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                self._heard_s = self._clock.now_s()
                if self._take(message):
                    return
        except grpc.RpcError as error:
            details = f"{error.code().name.lower()}: {error.details()}"
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                self.end(WorkerLost(f"protocol: {details}"))
                return
            await self._out_of_touch(details)
        except MediaError as error:
            self.end(WorkerLost(f"protocol: {error}"))
        else:
            await self._out_of_touch("the worker ended the call")

    async def _out_of_touch(self, details: str) -> None:
        """The link knows better why, or will in a moment."""
        await asyncio.sleep(_LAST_WORD_S)
        self.end(WorkerLost(details))

    def _take(self, message: pb.FromLane) -> bool:
        """True after the last message."""
        match message.WhichOneof("kind"):
            case "encoded":
                self._deliver(message.encoded)
            case "unencoded":
                self._out.put(Unencoded(message.unencoded.pts))
            case "returned":
                self._told = message.returned
                while self._way and self._way[0][0] <= self._told.received:
                    self._way.popleft()
            case "need_source":
                self._plan.broken()
            case "ended":
                self.end(convert.error_of(message.ended))
                return True
        return False

    def _deliver(self, message: pb.Encoded) -> None:
        self._traffic.received += len(message.data)
        now_s = self._clock.now_s()
        arrived_s, decode_s, offered_s = self._frames.get(message.pts, (now_s, 0.0, now_s))
        encoded = convert.encoded_frame(message, arrived_s, decode_s)
        self._note_late("down", now_s - offered_s - message.held_s > LATE_S, now_s)
        self._out.put(encoded)

    def _note_late(self, direction: str, late: bool, now_s: float) -> None:
        if not late or not self._may_be_slow:
            self._late_since_s.pop(direction, None)
            return
        if now_s - self._late_since_s.setdefault(direction, now_s) > SLOW_S:
            self.end(WorkerLost(f"the link is too slow: {SLOW_S:g} s more than {LATE_S:g} s late"))
