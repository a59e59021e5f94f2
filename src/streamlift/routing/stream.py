"""One named stream: its publisher, its lanes, its viewers, and its state."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import suppress
from functools import partial

from streamlift.clock import Clock
from streamlift.errors import UnknownStream
from streamlift.frames import Codec, Frame, LaneOptions
from streamlift.metrics import Metrics
from streamlift.routing.autopilot import Autopilot
from streamlift.routing.backends import BackendTable
from streamlift.routing.broadcast import Cursor
from streamlift.routing.comparisons import Comparisons
from streamlift.routing.counts import Counts
from streamlift.routing.events import EventKind, EventLog
from streamlift.routing.fanout import Fanout
from streamlift.routing.journal import Journal
from streamlift.routing.keyframes import KeyframeRequests
from streamlift.routing.lanes import Lanes
from streamlift.routing.placing import made_now, placed
from streamlift.routing.policy import Policy
from streamlift.routing.ports import Publisher
from streamlift.routing.presence import USUAL, Absence, Slate
from streamlift.routing.seat import Seat
from streamlift.routing.settings import Idle, StreamSettings, View
from streamlift.routing.states import StreamEvent, StreamState
from streamlift.routing.status import StreamSnapshot
from streamlift.routing.transition import SwitchMode
from streamlift.routing.tuning import Change, Tuning
from streamlift.timeline import Timeline

__all__ = ["Slate", "Stream"]

_ENDING = (StreamState.DRAINING, StreamState.CLOSED)
TEND_S = 0.25


class Stream:
    """A named stream. `run` is its owner; publishers call `publish`, viewers `watch`.

    All methods belong to the event loop; none but the coroutines ever waits.
    """

    def __init__(
        self,
        name: str,
        table: BackendTable,
        backend: str,
        *,
        clock: Clock,
        metrics: Metrics,
        settings: StreamSettings,
        events: EventLog | None = None,
        policy: Policy = Policy.FIXED,
        slate: Slate | None = None,
    ) -> None:
        self.name = name
        self._slate = slate
        self._clock = clock
        self._metrics = metrics
        self._journal = Journal(name, events or EventLog(), metrics)
        self._counts = Counts(metrics)
        self._timeline = Timeline()
        self._keyframes = KeyframeRequests()
        self._source_keyframes = KeyframeRequests()
        self._seat = Seat(name)
        self._fanout = Fanout(
            clock,
            settings.rendition,
            self.request_keyframe,
            self.request_source_keyframe,
            self._viewers_changed,
            self._skipped,
        )
        self._tuning = Tuning(
            settings, self._fanout, self._counts, self._journal, clock, self._viewers_changed
        )
        self._autopilot = Autopilot(policy, partial(table.as_free, name), clock.now_s())
        choice = self._autopilot.choose(None, None)
        self._lanes = Lanes(
            backend if choice is None else choice.backend,
            table,
            options=self._lane_options,
            fanout=self._fanout,
            counts=self._counts,
            journal=self._journal,
            clock=clock,
            max_age_s=settings.max_age_s,
        )
        self.comparisons = Comparisons(
            table,
            self._lanes,
            options=self._lane_options,
            fanout=self._fanout,
            counts=self._counts,
            journal=self._journal,
            clock=clock,
            metrics=metrics,
        )
        self._absence = Absence(clock.now_s())
        self._still_wanted = False  # a keyframe was asked for since the last frame
        # When there last was a viewer, and a publisher that lasts or answers.
        self._watched_s = self._stayed_s = clock.now_s()
        self._tasks: asyncio.TaskGroup | None = None
        self._running = asyncio.Event()
        self._changed = asyncio.Event()
        self._close_reason: str | None = None

    # For publishers and viewers.

    @property
    def state(self) -> StreamState:
        return self._journal.state

    @property
    def publisher(self) -> Publisher | None:
        """Who publishes now; for the relay of its audio."""
        return self._seat.publisher

    @property
    def settings(self) -> StreamSettings:
        return self._tuning.settings

    @property
    def backend(self) -> str:
        """The backend whose picture is shown, or will be."""
        return self._lanes.backend

    @property
    def ending(self) -> bool:
        """It takes no publishers and viewers any more, and delivers what is owed at most."""
        return self._close_reason is not None or self.state in _ENDING

    @property
    def viewers(self) -> int:
        """Sessions that watch any view of this stream."""
        return self._fanout.viewers + self.comparisons.viewers

    async def run(self) -> None:
        """Live until closed, or until no picture came for `waiting_s`; then end all viewers."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = self.comparisons.tasks = tasks
                playing = tasks.create_task(self._lanes.run())
                await asyncio.sleep(0)  # it has begun: frames may come
                self._running.set()
                reason = await self._tend_until_closed()
                self._journal.apply(StreamEvent.DRAIN, reason)
                self.comparisons.close(reason)
                if self._seat.publisher is not None:
                    self._seat.send_away(tasks, self._seat.publisher, reason)
                await self._lanes.drain(self.settings.drain_s)
                playing.cancel()
        finally:
            self._running.set()  # whoever waits for it finds the stream closed
            self._journal.apply(StreamEvent.CLOSE, self._close_reason or "cancelled")
            self.comparisons.close(self._close_reason or "cancelled")
            self._fanout.close()
            self._report()

    async def publish(self, publisher: Publisher, *, lasting: bool = False) -> None:
        """Pass on the publisher's frames until it ends; this is the publisher's own task.

        `lasting`: it has its own ways of getting pictures, and keeps the stream open without any.
        Raises StreamTaken when another one is there and `takeover` is off, NoCapacity or NotReady
        when no lane can be had, UnknownStream when the stream is closing.
        """
        await self._running.wait()
        self._take_seat(publisher, lasting)
        try:
            async for frame in publisher:
                if self._seat.publisher is not publisher or self.state in _ENDING:
                    return  # taken over, or the stream ends: no lane takes this any more
                if self._lanes.refusal is not None:
                    raise self._lanes.refusal
                self._take(frame)
        finally:
            self._leave_seat(publisher)

    def watch(
        self, view: View = View.UPSCALED, codec: Codec | None = None, *, thin: bool = False
    ) -> Cursor:
        """A viewer's cursor; close it when the viewer is gone.

        The codec defaults to the default rendition's; `thin` for a viewer whose link cannot carry
        that. Raises UnknownStream when closed.
        """
        self._must_be_open()
        return self._fanout.watch(view, codec, thin=thin)

    def request_keyframe(self) -> None:
        """A viewer lost a picture; requests are merged to one keyframe per half second."""
        self._still_wanted = True
        if self._keyframes.ask(self._clock.now_s()):
            self._lanes.request_keyframe()

    def request_source_keyframe(self) -> None:
        """The same for a viewer of the source view; the publisher is asked."""
        if self._source_keyframes.ask(self._clock.now_s()):
            self._seat.request_keyframe()

    # For the control API.

    def switch(
        self, backend: str, *, mode: SwitchMode | None = None, reason: str = "asked"
    ) -> None:
        """Use this backend from now on; returns at once, events tell how it went."""
        self._autopilot.set_policy(Policy.FIXED)
        self._lanes.switch(backend, mode, reason)

    def set_policy(self, policy: Policy, *, mode: SwitchMode | None = None) -> None:
        """Let a policy choose the backend, now and when load or backends change."""
        self._autopilot.set_policy(policy)
        choice = self._autopilot.choose(self._counts.ingest.fps, self.backend)
        if choice is not None:
            self._lanes.switch(choice.backend, mode, f"policy {policy}: {choice.reason}")

    def change(self, change: Change) -> None:
        """Change settings of a running stream; viewers stay. Raises UnsupportedSize."""
        if self._tuning.apply(change, self.backend):
            self._lanes.finish()  # the next frame opens a lane with the new settings

    async def close(self, reason: str) -> None:
        """End the publisher and all viewers; returns at once, `run` then ends."""
        if self._close_reason is None:
            self._close_reason = reason
            self._changed.set()

    def snapshot(self) -> StreamSnapshot:
        """All that the API tells of this stream, now."""
        counts, degraded = self._counts, self._lanes.degraded
        renditions = tuple(sorted(self._fanout.renditions(), key=lambda r: (r.codec, r.thin)))
        return StreamSnapshot(
            name=self.name,
            state=self.state,
            reason=self._journal.reason if degraded is None else degraded,
            degraded=degraded is not None,
            backend=self.backend,
            policy=self._autopilot.policy,
            target=self._tuning.target,
            settings=self.settings,
            publisher=None if self._seat.publisher is None else counts.publisher(),
            output=dataclasses.replace(counts.output(self._clock.now_s()), renditions=renditions),
            latency_ms=counts.latency_ms(),
            frames=counts.frames(self._seat.counts, self._lanes.upscaled, self._lanes.dropped),
            viewers=self.viewers,
            compare=self.comparisons.snapshots(),
        )

    # The way of a frame.

    def _take(self, frame: Frame) -> None:
        now_s = self._clock.now_s()
        frame = placed(frame, self._timeline)
        self._seen(now_s)
        self._counts.submitted(frame)
        if self._source_keyframes.due(now_s):
            self._seat.request_keyframe()
        if self._paused(now_s):
            self._counts.drop("idle")
            return
        self._fanout.source.keep(frame)
        if self._keyframes.due(now_s):
            self._lanes.request_keyframe()
        self._lanes.offer(frame, admission=self._seat.fresh)
        self.comparisons.offer(frame)
        self._seat.fresh = False

    def _seen(self, now_s: float) -> None:
        self._still_wanted = False
        if (back := self._absence.frame(now_s)) or self.state is StreamState.WAITING:
            self._journal.apply(StreamEvent.PUBLISHER)
        if back:
            self._journal.tell(EventKind.PUBLISHER_BACK)

    def _repeat(self, now_s: float) -> None:
        """Show the last picture again: the publisher is there, but has nothing new to show."""
        if (last := self._counts.last_in) is None or self._paused(now_s):
            return
        self._seen(now_s)
        self._metrics.count("frames_repeated_total", reason="quiet")
        frame = made_now(last, self._timeline, now_s)
        self._lanes.offer(frame)
        self.comparisons.offer(frame)

    def _paused(self, now_s: float) -> bool:
        if self.viewers or self.settings.idle is Idle.RUN:
            self._watched_s = now_s
        return now_s - self._watched_s > self.settings.idle_after_s

    def _lane_options(self) -> LaneOptions:
        return LaneOptions(
            renditions=self._fanout.renditions(),
            stabilise=self.settings.stabilise,
            stream=self.name,
            fps=self._counts.ingest.fps,
            ask_source=self.request_source_keyframe,
        )

    # Publishers.

    def _take_seat(self, publisher: Publisher, lasting: bool) -> None:
        self._must_be_open()
        self._seat.must_be_free(self.settings.takeover)
        if (former := self._seat.publisher) is not None:
            self._leave_seat(former, "taken over by another publisher")
            assert self._tasks is not None  # seats are given only while running
            self._seat.send_away(self._tasks, former, "taken_over")
        self._seat.take(publisher, lasting)
        self._lanes.refusal = None
        self._timeline.restart()
        self._fanout.source.restart()
        self._counts.ingest.clear()
        self._journal.apply(StreamEvent.PUBLISHER)
        self._changed.set()

    def _leave_seat(self, publisher: Publisher, reason: str = "publisher gone") -> None:
        if self._seat.publisher is not publisher:
            return
        self._seat.leave()
        self._counts.publisher_gone(publisher)
        self._lanes.finish()
        self.comparisons.finish()
        self._gone(reason)
        self._changed.set()

    def _gone(self, reason: str) -> None:
        self._journal.apply(StreamEvent.GONE, reason)
        if self._absence.left():
            self._journal.tell(EventKind.PUBLISHER_GONE, reason=reason)

    # Tending.

    async def _tend_until_closed(self) -> str:
        while self._close_reason is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(TEND_S):
                    await self._changed.wait()
            self._changed.clear()
            self._tend(self._clock.now_s())
        return self._close_reason

    def _tend(self, now_s: float) -> None:
        """Look after what is due by time rather than by a frame."""
        self._look_after_publisher(now_s)
        waited_s = min(self._absence.lasted_s(now_s), now_s - self._stayed_s)
        if waited_s > self.settings.waiting_s:
            reason = f"no publisher for {self.settings.waiting_s:g} s"
            self._close_reason = self._close_reason or reason
        self._report()
        self._tuning.tend()
        if self._paused(now_s):
            kept = now_s - self._watched_s <= self.settings.idle_after_s + self.settings.parked_s
            (self._lanes.park if kept else self._lanes.finish)()
        known = self._counts.last_in
        shows = self.viewers and (known or self.state is StreamState.WAITING)
        if self._slate and shows and self._absence.slate_due(now_s):
            slate = self._slate(known.size if known else USUAL, self._journal.reason)
            self._lanes.offer(made_now(slate, self._timeline, now_s), slate=True)
        if self._autopilot.due(now_s):
            self._autopilot.steer(now_s, self._lanes, self._counts, self._journal)

    def _look_after_publisher(self, now_s: float) -> None:
        seat = self._seat
        if seat.lasting:
            self._stayed_s = now_s
        if seat.publisher is None or (seat.fresh and (seat.lasting or not seat.publisher.absence)):
            return
        if (absence := seat.publisher.absence) is None:
            self._stayed_s = now_s
            if self._absence.gone or (self._still_wanted and self._absence.quiet(now_s)):
                self._repeat(now_s)
        elif seat.fresh or not self._absence.gone:
            self._gone(absence)

    def _report(self) -> None:
        self._counts.report(self._seat.counts, self._lanes.upscaled, self._lanes.dropped)
        self.comparisons.look()

    def _viewers_changed(self) -> None:
        self._lanes.set_renditions(self._fanout.renditions())

    def _skipped(self, frames: int) -> None:
        self._metrics.count("frames_dropped_total", frames, stage="sent", reason="slow_viewer")

    def _must_be_open(self) -> None:
        if self.ending:
            raise UnknownStream(f"stream {self.name} is closed: {self._close_reason}")
