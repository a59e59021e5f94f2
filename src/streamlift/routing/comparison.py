"""A second backend's picture of a stream, in step with the shown one, while somebody compares."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import deque
from collections.abc import Callable
from contextlib import aclosing, suppress

from streamlift.clock import Clock
from streamlift.errors import NoCapacity, reason_of
from streamlift.frames import Codec, EncodedFrame, Frame, LaneOptions, Rendition, Unencoded
from streamlift.metrics import Metrics
from streamlift.routing.broadcast import Cursor
from streamlift.routing.budgets import fault_kind
from streamlift.routing.fanout import Fanout
from streamlift.routing.guests import Restraint
from streamlift.routing.keyframes import KeyframeRequests
from streamlift.routing.open_lane import Delivered, OpenLane, Purpose
from streamlift.routing.playout import Playout
from streamlift.routing.ports import Places
from streamlift.routing.rate import Rate
from streamlift.routing.settings import View
from streamlift.routing.status import CompareSnapshot
from streamlift.tasks import supervise

__all__ = ["Comparison"]

log = logging.getLogger(__name__)

TICK_S = 0.05
OPENING_S = 5.0
CLOSING_S = 3.0
WAITING_FRAMES = 256
"""Kept for the shown lane's pictures of the same pts; the oldest go out if it shows none."""


class Comparison:
    """One more lane of a stream, fed with the same frames, for those who hold its picture against
    the shown one. It ends with the last of them, with its lane's fault, or when it gives way.

    A picture goes out when the shown lane's of the same pts does, or as soon as it is there if
    that is later. `on_end` is called once, with the error of its lane if that is why.
    """

    def __init__(
        self,
        backend: str,
        on: Places,
        *,
        stream: str,
        rendition: Rendition,
        options: Callable[[], LaneOptions],
        restraint: Restraint,
        clock: Clock,
        metrics: Metrics,
        on_end: Callable[[Comparison, str, Exception | None], None],
    ) -> None:
        """`options`: what the stream asks of its own lanes."""
        self.backend = backend
        self.reason: str | None = None
        """Why it ended."""
        self.error: Exception | None = None
        """That of its lane, if it ended by one."""
        self.holders = 0
        self._on = on
        self._stream = stream
        self._stream_options = options
        self._restraint = restraint
        self._clock = clock
        self._metrics = metrics
        self._on_end = on_end
        self._fanout = Fanout(
            clock,
            rendition,
            self._keyframe_wanted,
            _no_source,
            self._set_renditions,
            self._skipped,
        )
        self._playout = Playout()
        self._waiting: deque[Delivered] = deque()  # for the shown lane's picture
        self._lane: OpenLane | None = None
        self._former: OpenLane | None = None  # it may still deliver what it owes
        self._asked: LaneOptions | None = None  # of that lane
        self._keyframes = KeyframeRequests()
        self._shown_pts = -1  # up to which the shown lane's pictures went out
        self._credit = 0.0
        self._rate = Rate()
        self._last: EncodedFrame | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._wake = asyncio.Event()
        self._opened = asyncio.Event()  # or over

    @property
    def holds(self) -> bool:
        """Whether it has a place on its backend now, or is about to."""
        return any(lane is not None and lane.alive for lane in (self._former, self._lane))

    # For those who watch it.

    @property
    def viewers(self) -> int:
        return self._fanout.viewers

    def watch(self, codec: Codec | None = None, *, thin: bool = False) -> Cursor:
        """A viewer's cursor, as `Stream.watch`; it is at its end if the comparison is."""
        cursor = self._fanout.watch(View.UPSCALED, codec, thin=thin)
        if self.reason is not None:
            cursor.close()
        return cursor

    def snapshot(self) -> CompareSnapshot:
        """How it is now."""
        kept = self._restraint.kept(self._clock.now_s())
        state = "opening" if self._last is None else "live"
        return CompareSnapshot(
            backend=self.backend,
            state="left_out" if kept < 1.0 else state,
            viewers=self.holders,
            kept=kept,
            size=None if self._last is None else self._last.size,
            fps=self._rate.fps,
        )

    # Its life.

    def begin(self, tasks: asyncio.TaskGroup, last: Frame | None) -> None:
        """Live in `tasks`. `last`: a frame of the sort that is to be expected, if that is known."""
        self._tasks = tasks
        tasks.create_task(supervise(f"stream {self._stream}: comparison", self._tend()))
        if last is not None:
            self._follow(last)

    async def opened(self) -> None:
        """Until its first lane is open, or it is over."""
        if self._lane is not None:
            await self._opened.wait()

    def end(self, reason: str, error: Exception | None = None) -> None:
        """Free its place, and end its viewers; may be called again."""
        if self.reason is not None:
            return
        self.reason, self.error = reason, error
        for lane in (self._former, self._lane):
            if lane is not None:
                lane.retire()
        self._opened.set()
        self._wake.set()
        self._on_end(self, reason, error)
        self._fanout.close()

    async def give_way(self, reason: str) -> None:
        """As `guests.Guest`."""
        self.end(reason)
        lanes = (self._former, self._lane)
        tasks = [one.task for one in lanes if one is not None and one.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSING_S)

    # What it is given.

    def offer(self, frame: Frame, rendition: Rendition) -> None:
        """A frame that the stream's own lane has got; `rendition`: the stream's default one."""
        if self.reason is not None:
            return
        now_s = self._clock.now_s()
        if rendition != self._fanout.rendition:
            self._fanout.rendition = rendition
            self._set_renditions()
        self._credit = min(1.0, self._credit + self._restraint.kept(now_s))
        if self._credit < 1.0:
            self._drop("gives_way")
            return
        self._credit -= 1.0
        lane = self._lane
        if lane is None or not lane.takes(frame.size, False) or self._outdated():
            lane = self._follow(frame)
        if self._keyframes.due(now_s):
            lane.request_keyframe()
        if not lane.offer(frame, now_s):
            self._drop("stale")

    def finish(self) -> None:
        """What comes next is another publisher's: the lane drains, and the next frame opens one."""
        if self._lane is not None:
            self._lane.finish(self._clock.now_s())

    def release(self, pts: int) -> None:
        """The shown lane's picture of this pts goes out now."""
        self._shown_pts = max(self._shown_pts, pts)
        still: deque[Delivered] = deque()
        for one in self._waiting:
            if one.pts <= self._shown_pts:
                self._playout.put(one)
            else:
                still.append(one)
        self._waiting = still
        self._turn()

    # Its lanes.

    def _options(self) -> LaneOptions:
        return dataclasses.replace(
            self._stream_options(),
            renditions=self._fanout.renditions(),
            guest=True,
            ask_source=self._ask_source,
        )

    def _ask_source(self) -> None:
        """A worker that takes coded frames needs a keyframe after each gap. Not while frames are
        left out here: each would cost the stream another one."""
        if self._restraint.kept(self._clock.now_s()) >= 1.0:
            self._stream_options().ask_source()

    def _outdated(self) -> bool:
        """Whether the stream asks its lanes for something else than it did."""
        return self._asked is not None and _lasting(self._options()) != _lasting(self._asked)

    def _follow(self, frame: Frame) -> OpenLane:
        """Open a lane for frames of this sort, in the place of the one before."""
        assert self._tasks is not None  # begun before
        if self._former is not None:
            self._former.retire()
        self._former = former = self._lane
        if former is not None:
            former.finish(self._clock.now_s())
        lane = OpenLane(self.backend, self._on, frame.size, Purpose())
        self._lane, self._asked = lane, self._options()
        what = f"stream {self._stream}: compared lane on {self.backend}"
        lane.task = self._tasks.create_task(supervise(what, self._carry(lane, former)))
        return lane

    async def _carry(self, lane: OpenLane, former: OpenLane | None) -> None:
        try:
            await lane.open(self._options, former, OPENING_S)
            self._opened.set()
            async with aclosing(lane.frames(self._clock.now_s)) as frames:
                async for encoded in frames:
                    self._arrived(lane, encoded)
        except Exception as error:  # noqa: BLE001 - whatever a backend raises ends only this view
            self._failed(lane, error)
        finally:
            for reason, frames_lost in lane.dropped.items():
                self._drop(reason, frames_lost)
            await lane.close()

    def _failed(self, lane: OpenLane, error: Exception) -> None:
        if lane is not self._lane or self.reason is not None:
            return  # another one has followed, or nobody wants it any more
        kind = fault_kind(error)
        words = reason_of(error) if isinstance(error, NoCapacity) else f"{kind}: {reason_of(error)}"
        log.warning("stream %s: comparison with %s: %s", self._stream, self.backend, words)
        self.end(words, error)

    # What it gives.

    def _arrived(self, lane: OpenLane, encoded: EncodedFrame | Unencoded) -> None:
        now_s = self._clock.now_s()
        if isinstance(encoded, Unencoded):
            lane.returned(encoded.pts, now_s)
            return
        one = Delivered(encoded, lane, self._fanout.leads(encoded))
        if one.leads:
            lane.returned(one.pts, now_s)
        if one.pts <= self._shown_pts:
            self._playout.put(one)
        else:
            self._waiting.append(one)
            if len(self._waiting) > WAITING_FRAMES:
                self._playout.put(self._waiting.popleft())
        self._turn()

    def _turn(self) -> None:
        """Put out what is due."""
        while group := self._playout.take(self._clock.now_s(), self._aim()):
            for one in group:
                self._show(one)
        if self._playout.wait_s(self._clock.now_s(), self._aim()) is not None:
            self._wake.set()

    def _aim(self) -> float | None:
        """Pictures of a lane that takes several at once come evenly."""
        return None if self._lane is None else self._lane.offsets.aim

    def _show(self, one: Delivered) -> None:
        if not self._fanout.show(one):
            self._drop("out_of_step")
        elif one.leads:
            self._last = one.encoded
            self._rate.observe(one.pts, len(one.encoded.data))
            self._metrics.count("frames_total", stage="compared")

    # What is due by time.

    async def _tend(self) -> None:
        """Put out what becomes due, and look whether the lane hangs, until it is over."""
        looked_s = self._clock.now_s()
        while self.reason is None:
            self._turn()
            self._wake.clear()
            wait_s = self._playout.wait_s(self._clock.now_s(), self._aim())
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S if wait_s is None else min(wait_s, TICK_S)):
                    await self._wake.wait()
            now_s = self._clock.now_s()
            blocked = now_s - looked_s > 2 * TICK_S  # this loop; the lane may have answered
            looked_s = now_s
            if self._lane is not None and not blocked and self._lane.hung(now_s):
                self._lane.tell_hung()
                self._failed(self._lane, TimeoutError("no answer"))

    def _keyframe_wanted(self) -> None:
        if self._keyframes.ask(self._clock.now_s()) and self._lane is not None:
            self._lane.request_keyframe()

    def _set_renditions(self) -> None:
        if self._lane is not None:
            self._lane.set_renditions(self._fanout.renditions())

    def _skipped(self, frames: int) -> None:
        self._metrics.count("frames_dropped_total", frames, stage="sent", reason="slow_viewer")

    def _drop(self, reason: str, amount: int = 1) -> None:
        self._metrics.count("frames_dropped_total", amount, stage="compare", reason=reason)


def _lasting(options: LaneOptions) -> LaneOptions:
    """What of the options a lane keeps from its opening to its end."""
    return dataclasses.replace(options, renditions=frozenset(), fps=None)


def _no_source() -> None:
    """The publisher's own picture is watched at the stream."""
