"""One lane of a worker's backend, served over a call to the anchor that opened it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from streamlift.clock import Clock
from streamlift.cluster.intake import Intake, must_fit
from streamlift.cluster.wire import convert
from streamlift.cluster.wire import worker_pb2 as pb
from streamlift.engine import EngineBackend
from streamlift.errors import MediaError, StreamliftError, UpscaleError, WorkerLost
from streamlift.frames import EncodedFrame, Rendition, Size, Unencoded

__all__ = ["ServedLane"]

logger = logging.getLogger(__name__)

RETURNED_S = 0.1
OUT_BYTES = 1024 * 1024
OUT_AGE_S = 0.5
OUT_MESSAGES = 512
STALLED_S = 2.0
_KNOWN = 512


class Outbox:
    """What goes to the anchor; bounded by 1 MiB and half a second.

    Above that all coded frames that wait are dropped (`dropped`), and of each rendition those that
    follow up to its next keyframe, which `push` asks for by returning False. `full_since_s`: since
    when no coded frame that is wanted could be taken.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Since when, message, and the rendition of coded frames.
        self._items: deque[tuple[float, bytes, Rendition | None]] = deque()
        self._bytes = 0
        self._broken: set[Rendition] = set()  # see `_format`
        self._wanted: set[Rendition] | None = None  # the same; None: not yet told
        self._wake = asyncio.Event()
        self.dropped = 0
        self.full_since_s: float | None = None
        self._closed = False

    def push(self, encoded: EncodedFrame, held_s: float) -> bool:
        """Queue a coded frame; False: it was dropped, and its encoder should make a keyframe."""
        now_s = self._clock.now_s()
        coded_since = next((since for since, _, of in self._items if of is not None), now_s)
        if self._bytes > OUT_BYTES or now_s - coded_since > OUT_AGE_S:
            kept = [item for item in self._items if item[2] is None]
            self._broken |= {_format(of) for _, _, of in self._items if of is not None}
            self.dropped += len(self._items) - len(kept) + 1
            self._items = deque(kept)
            self._bytes = sum(len(item[1]) for item in kept)
            self._broken.add(_format(encoded.rendition))
            if self.full_since_s is None and self._lacks_any():
                self.full_since_s = now_s
            return False
        if _format(encoded.rendition) in self._broken:
            if not encoded.keyframe:
                self.dropped += 1
                return True  # it was asked for already
            self._broken.discard(_format(encoded.rendition))
        self.full_since_s = None
        message = pb.FromLane(encoded=convert.encoded_message(encoded, held_s))
        self._put(bytes(message.SerializeToString()), encoded.rendition)
        return True

    def want(self, renditions: frozenset[Rendition]) -> None:
        """Only these are coded from now on: no keyframe comes of another."""
        self._wanted = {_format(rendition) for rendition in renditions}
        if not self._lacks_any():
            self.full_since_s = None

    def _lacks_any(self) -> bool:
        """Whether a rendition that is wanted waits for its keyframe."""
        return bool(self._broken if self._wanted is None else self._broken & self._wanted)

    def tell(self, message: pb.FromLane) -> None:
        """Queue a message that is not coded video; they are small, and dropped above 512."""
        if len(self._items) < OUT_MESSAGES:
            self._put(bytes(message.SerializeToString()))

    def close(self, last: pb.FromLane) -> None:
        """Nothing follows but this."""
        self._put(bytes(last.SerializeToString()))
        self._closed = True

    async def get(self) -> bytes | None:
        """The next message; None after the last one."""
        while not self._items:
            if self._closed:
                return None
            self._wake.clear()
            await self._wake.wait()
        _, data, _ = self._items.popleft()
        self._bytes -= len(data)
        return data

    def _put(self, data: bytes, of: Rendition | None = None) -> None:
        self._items.append((self._clock.now_s(), data, of))
        self._bytes += len(data)
        self._wake.set()


def _format(rendition: Rendition) -> Rendition:
    """The same for all bit rates: an encoder that is given another goes on without a keyframe."""
    return replace(rendition, bitrate_bps=0)


class ServedLane:
    """Opened by the first message of a call; `serve` returns when the lane or the call ends."""

    def __init__(self, backend: EngineBackend, clock: Clock, max_side: int) -> None:
        self._backend = backend
        self._clock = clock
        self._max_side = max_side
        self._out = Outbox(clock)
        self._received = -(2**62)  # pts of the last frame that came
        self._came_s: dict[int, float] = {}  # by pts
        self._ended: asyncio.Future[StreamliftError | None] | None = None

    async def open(self, message: pb.Open) -> None:
        """Raises NoCapacity, NotReady or MediaError."""
        must_fit(message, self._max_side)
        size, options = Size(message.width, message.height), convert.lane_options(message)
        self._lane = await self._backend.open_lane(size, options)
        self._intake = Intake(
            options.stream,
            max_side=self._max_side,
            clock=self._clock,
            offer=self._lane.offer,
            need_source=self._need_source,
        )
        self._ended = asyncio.get_running_loop().create_future()

    def end(self, error: StreamliftError | None) -> None:
        """The lane is over; its anchor is told why."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(error)

    async def serve(self, context: grpc.aio.ServicerContext) -> None:
        assert self._ended is not None
        self._out.tell(pb.FromLane(opened=pb.Opened()))
        work = [self._read(context), self._pump(), self._report()]
        working = [asyncio.create_task(part) for part in work]
        for task in working:
            task.add_done_callback(self._part_ended)
        writing = asyncio.create_task(self._write(context))
        try:
            await asyncio.wait((writing, self._ended), return_when=asyncio.FIRST_COMPLETED)
            for task in working:
                task.cancel()
            if self._ended.done():
                self._out.tell(self._returned())
                ended = convert.ended_message(self._ended.result())
                self._out.close(pb.FromLane(ended=ended))
                await asyncio.wait((writing,), timeout=STALLED_S)
        finally:
            for task in (*working, writing):
                task.cancel()
            self._intake.close()
            await self._lane.aclose()
            await asyncio.gather(*working, writing, return_exceptions=True)

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a lane's part failed", exc_info=error)
            self.end(UpscaleError(f"the worker failed: {error}"))

    # ---- in ----

    async def _read(self, context: grpc.aio.ServicerContext) -> None:
        try:
            while (data := await context.read()) is not grpc.aio.EOF:
                message = pb.ToLane.FromString(data)
                convert.check_size(message, len(data))
                self._take(message)
        except (MediaError, DecodeError) as error:
            self.end(WorkerLost(f"protocol: {error}"))
            return
        self.end(None)  # the anchor has closed its side without Finish

    def _take(self, message: pb.ToLane) -> None:
        lane, intake = self._lane, self._intake
        match message.WhichOneof("kind"):
            case "unit":
                self._note(message.unit.pts)
                intake.unit(message.unit)
            case "picture":
                self._note(message.picture.pts)
                intake.picture(message.picture)
            case "renditions":
                wanted = convert.renditions(message.renditions.list)
                self._out.want(wanted)
                intake.do(lambda: lane.set_renditions(wanted))
            case "keyframe":
                lane.request_keyframe()
            case "finish":
                intake.finish(lane.finish)
            case "park":
                intake.do(lane.park)
            case "hung":
                self._backend.lane_hung(lane)
            case other:
                raise MediaError(f"unexpected message {other}")

    def _note(self, pts: int) -> None:
        """A frame has come."""
        self._received = max(self._received, pts)
        self._came_s[pts] = self._clock.now_s()
        if len(self._came_s) > _KNOWN:
            del self._came_s[next(iter(self._came_s))]

    def _held_s(self, pts: int) -> float:
        now_s = self._clock.now_s()
        return now_s - self._came_s.get(pts, now_s)

    def _need_source(self, reason: str) -> None:
        self._out.tell(pb.FromLane(need_source=pb.NeedSource(reason=reason[:200])))

    # ---- out ----

    async def _pump(self) -> None:
        try:
            async for encoded in self._lane:
                if isinstance(encoded, Unencoded):
                    self._out.tell(pb.FromLane(unencoded=pb.Unencoded(pts=encoded.pts)))
                elif not self._out.push(encoded, self._held_s(encoded.pts)):
                    self._lane.request_keyframe()
        except StreamliftError as error:
            self.end(error)
        else:
            self.end(None)

    async def _report(self) -> None:
        while True:
            self._out.tell(self._returned())
            full_since_s = self._out.full_since_s
            if full_since_s is not None and self._clock.now_s() - full_since_s > STALLED_S:
                self.end(WorkerLost("the link is too slow for what comes back"))
            await asyncio.sleep(RETURNED_S)

    def _returned(self) -> pb.FromLane:
        dropped: dict[str, Any] = dict(self._lane.dropped)
        if self._out.dropped:
            dropped["link_busy"] = self._out.dropped
        returned = pb.Returned(
            received=self._received,
            upscaled=self._lane.upscaled,
            dropped=dropped,
            degraded=self._lane.degraded,
            can_spend_less=self._lane.can_spend_less,
            stuck_s=min(self._lane.stuck_s, 1e6),
        )
        return pb.FromLane(returned=returned)

    async def _write(self, context: grpc.aio.ServicerContext) -> None:
        while (data := await self._out.get()) is not None:
            await context.write(data)
