"""One named stream: its publisher, its lanes, its viewers, and its state."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress

from streamlift.clock import Clock
from streamlift.errors import BackendError, StreamTaken, UnknownStream
from streamlift.frames import (
    BackendInfo,
    Codec,
    EncodedFrame,
    Frame,
    LaneOptions,
    Size,
    Stabilise,
)
from streamlift.metrics import Metrics
from streamlift.routing.autopilot import Autopilot
from streamlift.routing.broadcast import Cursor
from streamlift.routing.budgets import ErrorBudget, info_within
from streamlift.routing.counts import Figures
from streamlift.routing.crossing import SwitchMode
from streamlift.routing.events import EventKind, EventLog
from streamlift.routing.fanout import Outputs
from streamlift.routing.feed import Feed
from streamlift.routing.keyframes import KeyframeRequests
from streamlift.routing.policy import Policy
from streamlift.routing.ports import Backend, Lane, Publisher
from streamlift.routing.presence import Absence
from streamlift.routing.settings import Idle, StreamSettings, View
from streamlift.routing.states import StateMachine, StreamEvent, StreamState
from streamlift.routing.status import StreamSnapshot
from streamlift.routing.supervise import supervise
from streamlift.routing.switchboard import Switchboard
from streamlift.timeline import Timeline

__all__ = ["Slate", "Stream"]

log = logging.getLogger(__name__)

_ENDING = (StreamState.DRAINING, StreamState.CLOSED)

Slate = Callable[[Size], Frame]
"""Makes the labelled still picture of a stream without publisher, at a low-resolution size.
Called on the event loop about twice a second: keep the pictures. Its pts is not used."""

TEND_S = 0.25


class Stream:
    """A named stream. `run` is its owner; publishers call `publish`, viewers `watch`.

    All methods belong to the event loop; none but the coroutines ever waits.
    """

    def __init__(
        self,
        name: str,
        backends: Mapping[str, Backend],
        backend: str,
        *,
        clock: Clock,
        metrics: Metrics,
        settings: StreamSettings,
        fallback: str | None = None,
        budgets: Mapping[str, ErrorBudget] | None = None,
        events: EventLog | None = None,
        policy: Policy = Policy.FIXED,
        slate: Slate | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self._backends = backends
        self._backend = backend  # until the switchboard is there
        self._fallback = fallback
        self._budgets = budgets or {name: ErrorBudget() for name in backends}
        self._events = events or EventLog()
        self._slate = slate
        self._clock = clock
        self._metrics = metrics
        self._machine = StateMachine()
        self._figures = Figures(metrics)
        self._timeline = Timeline()
        self._keyframes = KeyframeRequests()
        self._source_keyframes = KeyframeRequests()
        self._outputs = Outputs(
            clock,
            settings.rendition,
            self.request_keyframe,
            self.request_source_keyframe,
            self._viewers_changed,
            self._skipped,
        )
        self._absence = Absence(clock.now_s())
        self._watched_s = clock.now_s()  # when there last was a viewer
        self._lasting = False  # the publisher of now stays, with pictures or without
        self._stayed_s = clock.now_s()  # when there last was such a one
        self._autopilot = Autopilot(policy, self._infos, clock.now_s())
        self._board: Switchboard | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._publisher: Publisher | None = None
        self._first = False  # the next frame is its publisher's first
        self._refusal: BackendError | None = None
        self._running = asyncio.Event()
        self._changed = asyncio.Event()
        self._close_reason: str | None = None

    # For publishers and viewers.

    @property
    def state(self) -> StreamState:
        return self._machine.state

    @property
    def publisher(self) -> Publisher | None:
        """Who publishes now; for the relay of its audio."""
        return self._publisher

    @property
    def backend(self) -> str:
        """The backend whose picture is shown, or will be."""
        return self._backend if self._board is None else self._board.backend

    @property
    def ending(self) -> bool:
        """It takes no publishers and viewers any more, and delivers what is owed at most."""
        return self._close_reason is not None or self._machine.state in _ENDING

    @property
    def viewers(self) -> int:
        """Sessions that watch any view of this stream."""
        return self._outputs.viewers

    async def run(self) -> None:
        """Live until closed, or until no picture came for `waiting_s`; then end all viewers."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._board = self._switchboard(tasks)
                playing = tasks.create_task(self._board.run())
                self._running.set()
                reason = await self._tend_until_closed()
                self._apply(StreamEvent.DRAIN, reason)
                if self._publisher is not None:
                    tasks.create_task(self._send_away(self._publisher, reason))
                await self._board.drain(self.settings.drain_s)
                playing.cancel()
        finally:
            self._running.set()  # whoever waits for it finds the stream closed
            self._apply(StreamEvent.CLOSE, self._close_reason or "cancelled")
            self._outputs.close()
            self._report()

    async def publish(self, publisher: Publisher, *, lasting: bool = False) -> None:
        """Pass on the publisher's frames until it ends; this is the publisher's own task.

        `lasting`: it has its own ways of getting pictures, and keeps the stream open without any.
        Raises StreamTaken when another one is there and `takeover` is off, NoCapacity or NotReady
        when no lane can be had, UnknownStream when the stream is closing.
        """
        await self._running.wait()
        self._seat(publisher)
        self._lasting = lasting
        try:
            async for frame in publisher:
                if self._publisher is not publisher or self._machine.state in _ENDING:
                    return  # taken over, or the stream ends: no lane takes this any more
                if self._refusal is not None:
                    raise self._refusal
                self._take(frame)
        finally:
            self._unseat(publisher)

    def watch(
        self, view: View = View.UPSCALED, codec: Codec | None = None, profile: str | None = None
    ) -> Cursor:
        """A viewer's cursor; close it when the viewer is gone.

        Codec and profile default to the default rendition's. Raises UnknownStream when closed.
        """
        self._must_be_open()
        return self._outputs.watch(view, codec, profile)

    def request_keyframe(self) -> None:
        """A viewer lost a picture; requests are merged to one keyframe per half second."""
        if self._keyframes.ask(self._clock.now_s()) and self._board is not None:
            self._board.request_keyframe()

    def request_source_keyframe(self) -> None:
        """The same for a viewer of the source view; the publisher is asked."""
        if self._source_keyframes.ask(self._clock.now_s()) and self._publisher is not None:
            self._publisher.request_keyframe()

    # For the control API.

    def switch(
        self, backend: str, *, mode: SwitchMode | None = None, reason: str = "asked"
    ) -> None:
        """Use this backend from now on; returns at once, events tell how it went."""
        self._autopilot.set_policy(Policy.FIXED)
        self._move(backend, mode, reason)

    def set_policy(self, policy: Policy, *, mode: SwitchMode | None = None) -> None:
        """Let a policy choose the backend, now and when load or backends change."""
        self._autopilot.set_policy(policy)
        choice = self._autopilot.choose(self._figures.ingest.fps, self.backend)
        if choice is not None:
            self._move(choice.backend, mode, f"policy {policy}: {choice.reason}")

    def change(
        self,
        *,
        bitrate_bps: int | None = None,
        stabilise: Stabilise | None = None,
        idle: Idle | None = None,
    ) -> None:
        """Change settings of a running stream; viewers stay, None leaves a setting as it is."""
        settings = self.settings
        if bitrate_bps is not None:
            rendition = dataclasses.replace(settings.rendition, bitrate_bps=bitrate_bps)
            settings = dataclasses.replace(settings, rendition=rendition)
            self._outputs.rendition = rendition
        if idle is not None:
            settings = dataclasses.replace(settings, idle=idle)
        restart = stabilise is not None and stabilise is not settings.stabilise
        if restart:
            settings = dataclasses.replace(settings, stabilise=stabilise)
        self.settings = settings
        self._viewers_changed()
        if restart and self._board is not None:
            self._board.finish()  # the next frame opens a lane with the new settings

    async def close(self, reason: str) -> None:
        """End the publisher and all viewers; returns at once, `run` then ends."""
        if self._close_reason is None:
            self._close_reason = reason
            self._changed.set()

    def snapshot(self) -> StreamSnapshot:
        """All that the API tells of this stream, now."""
        figures, board, publisher = self._figures, self._board, self._publisher
        degraded = None if board is None else (board.why if board.degraded else board.strained)
        renditions = tuple(sorted(self._outputs.renditions(), key=lambda r: (r.codec, r.profile)))
        return StreamSnapshot(
            name=self.name,
            state=self._machine.state,
            reason=self._machine.reason if degraded is None else degraded,
            degraded=degraded is not None,
            backend=self.backend,
            policy=self._autopilot.policy,
            publisher=None if publisher is None else figures.publisher(),
            output=dataclasses.replace(figures.output(self._clock.now_s()), renditions=renditions),
            latency_ms=figures.latency_ms(),
            frames=figures.frames(
                None if publisher is None else publisher.counts,
                {} if board is None else board.dropped(),
            ),
            viewers=self.viewers,
        )

    # What the switchboard asks and tells (`switchboard.Viewport`).

    def lane_options(self) -> LaneOptions:
        return LaneOptions(
            renditions=self._outputs.renditions(),
            stabilise=self.settings.stabilise,
            stream=self.name,
            fps=self._figures.ingest.fps,
        )

    def leads(self, encoded: EncodedFrame) -> bool:
        return self._outputs.leads(encoded)

    def show(self, encoded: EncodedFrame, feed: Feed) -> None:
        if not self._outputs.show(encoded, feed):
            self._figures.drop("out_of_step")
        elif feed.slate:
            self._metrics.count("frames_fallback_total", kind="slate")
        elif self._outputs.leads(encoded):
            self._figures.sent(encoded, self._clock.now_s(), feed.backend)
            self._apply(StreamEvent.PICTURE, "")

    def refused(self, error: BackendError) -> None:
        self._refusal = error

    def crossing(self, begins: bool, reason: str) -> None:
        self._apply(StreamEvent.SWITCH if begins else StreamEvent.SETTLED, reason)

    def tell(
        self,
        kind: EventKind,
        *,
        before: str | None = None,
        after: str | None = None,
        gap_ms: float | None = None,
        reason: str = "",
    ) -> None:
        log.info("stream %s: %s %s -> %s: %s", self.name, kind, before, after, reason)
        self._events.add(
            kind, stream=self.name, before=before, after=after, gap_ms=gap_ms, reason=reason
        )

    def drop(self, reason: str, amount: int) -> None:
        self._figures.drop(reason, amount)

    def lane_ended(self, lane: Lane) -> None:
        self._figures.lane_gone(lane)

    # The way of a frame.

    def _take(self, frame: Frame) -> None:
        now_s = self._clock.now_s()
        frame = dataclasses.replace(frame, pts=self._timeline.place(frame.pts, frame.arrived_s))
        if self._absence.frame(now_s):
            self._apply(StreamEvent.PUBLISHER, "")
            self.tell(EventKind.PUBLISHER_BACK)
        self._figures.submitted(frame)
        if self._source_keyframes.due(now_s) and self._publisher is not None:
            self._publisher.request_keyframe()
        if self._board is None or self._paused(now_s):
            self._figures.drop("idle")
            return
        self._outputs.source.keep(frame)
        if self._keyframes.due(now_s):
            self._board.request_keyframe()
        self._board.offer(frame, admission=self._first)
        self._first = False

    def _paused(self, now_s: float) -> bool:
        if self.viewers or self.settings.idle is Idle.RUN:
            self._watched_s = now_s
        return now_s - self._watched_s > self.settings.idle_after_s

    # Publishers.

    def _seat(self, publisher: Publisher) -> None:
        self._must_be_open()
        former = self._publisher
        if former is not None and not self.settings.takeover:
            raise StreamTaken(
                f"stream {self.name} already has a publisher; end it first or allow takeover",
                found=self.name,
            )
        if former is not None:
            self._unseat(former, "taken over by another publisher")
            assert self._tasks is not None  # seats are given only while running
            self._tasks.create_task(self._send_away(former, "taken_over"))
        self._publisher, self._first, self._refusal = publisher, True, None
        self._timeline.restart()
        self._figures.ingest.clear()
        self._apply(StreamEvent.PUBLISHER, "")
        self._changed.set()

    def _unseat(self, publisher: Publisher, reason: str = "publisher gone") -> None:
        if self._publisher is not publisher:
            return
        self._publisher, self._lasting = None, False
        self._figures.publisher_gone(publisher)
        if self._board is not None:
            self._board.finish()
        self._gone(reason)
        self._changed.set()

    def _gone(self, reason: str) -> None:
        self._apply(StreamEvent.GONE, reason)
        if self._absence.left():
            self.tell(EventKind.PUBLISHER_GONE, reason=reason)

    async def _send_away(self, publisher: Publisher, reason: str) -> None:
        await supervise(f"stream {self.name}: former publisher", publisher.aclose(reason))

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
        if self._absence.silent(now_s):
            self._gone("publisher is silent")
        if self._lasting:
            self._stayed_s = now_s
        waited_s = min(self._absence.lasted_s(now_s), now_s - self._stayed_s)
        if waited_s > self.settings.waiting_s:
            self._close_reason = self._close_reason or (
                f"no publisher for {self.settings.waiting_s:g} s"
            )
        self._report()
        board, known = self._board, self._figures.last_in
        if board is None:
            return
        if self._paused(now_s):
            board.finish()
        if self._slate and known and self.viewers and self._absence.slate_due(now_s):
            slate = self._slate(known.size)
            pts = self._timeline.place_made(now_s)
            board.offer(dataclasses.replace(slate, pts=pts, arrived_s=now_s), slate=True)
        if self._autopilot.due(now_s):
            self._review(board, now_s)

    def _report(self) -> None:
        publisher, board = self._publisher, self._board
        self._figures.report(
            None if publisher is None else publisher.counts,
            {} if board is None else board.dropped(),
        )

    def _review(self, board: Switchboard, now_s: float) -> None:
        """Does the backend keep up, and would the policy choose another?"""
        step = self._autopilot.review(
            now_s,
            offered=self._figures.submitted_frames,
            dropped=self._figures.lane_drops(board.dropped()),
            steady=self.state is StreamState.LIVE and not board.degraded,
            can_spend_less=board.can_spend_less,
            fps=self._figures.ingest.fps,
            current=board.backend,
        )
        if step is None:
            return
        before = board.backend
        self.tell(EventKind.POLICY_STEP, before=before, after=step.backend, reason=step.reason)
        self._move(step.backend, None, f"policy {self._autopilot.policy}: {step.reason}")

    # Parts.

    def _switchboard(self, tasks: asyncio.TaskGroup) -> Switchboard:
        choice = self._autopilot.choose(None, None)
        return Switchboard(
            self.name,
            self._backends,
            self._backend if choice is None else choice.backend,
            self._fallback,
            self._budgets,
            self,
            self._clock,
            self._metrics,
            tasks,
        )

    def _infos(self) -> list[BackendInfo]:
        now_s = self._clock.now_s()
        return [
            info_within(b.info(), self._budgets[name], now_s) for name, b in self._backends.items()
        ]

    def _move(self, backend: str, mode: SwitchMode | None, reason: str) -> None:
        self._backend = backend
        if self._board is not None:
            self._board.switch(backend, mode, reason)

    def _viewers_changed(self) -> None:
        if self._board is not None:
            self._board.set_renditions(self._outputs.renditions())

    def _skipped(self, frames: int) -> None:
        self._metrics.count("frames_dropped_total", frames, stage="sent", reason="slow_viewer")

    def _must_be_open(self) -> None:
        if self.ending:
            raise UnknownStream(f"stream {self.name} is closed: {self._close_reason}")

    def _apply(self, event: StreamEvent, reason: str) -> None:
        before = self._machine.state
        if self._machine.apply(event, reason):
            self.tell(EventKind.STREAM_STATE, before=before, after=self.state, reason=reason)
