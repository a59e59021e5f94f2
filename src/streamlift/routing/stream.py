"""One named stream: its publisher, its lanes, its viewers, and its state."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Mapping

from streamlift.clock import Clock
from streamlift.errors import BackendError, StreamTaken, UnknownStream
from streamlift.frames import Codec, EncodedFrame, Frame, LaneOptions, Rendition
from streamlift.metrics import Metrics
from streamlift.routing.broadcast import Broadcast, Cursor
from streamlift.routing.crossing import SwitchMode
from streamlift.routing.events import EventKind, EventLog
from streamlift.routing.feed import Feed
from streamlift.routing.figures import Figures
from streamlift.routing.health import ErrorBudget
from streamlift.routing.keyframes import KeyframeRequests
from streamlift.routing.ports import Backend, Lane, Publisher
from streamlift.routing.settings import Idle, StreamSettings, View
from streamlift.routing.snapshot import StreamSnapshot
from streamlift.routing.source import SourceView
from streamlift.routing.states import StateMachine, StreamEvent, StreamState
from streamlift.routing.supervise import supervise
from streamlift.routing.switchboard import Switchboard
from streamlift.routing.timeline import Timeline

__all__ = ["Stream"]

log = logging.getLogger(__name__)

Format = tuple[Codec, str]
"""What tells renditions apart for viewers: codec and profile; the bit rate may change."""


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
    ) -> None:
        self.name = name
        self.settings = settings
        self._backends = backends
        self._backend = backend
        self._fallback = fallback
        self._budgets = budgets or {name: ErrorBudget() for name in backends}
        self._events = events or EventLog()
        self._clock = clock
        self._metrics = metrics
        self._machine = StateMachine()
        self._figures = Figures(metrics)
        self._timeline = Timeline()
        self._keyframes = KeyframeRequests()
        self._source_keyframes = KeyframeRequests()
        self._outputs: dict[Format, Broadcast] = {}
        self._source = SourceView(Broadcast(clock, self._ask_publisher, self._viewers_changed))
        self._board: Switchboard | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._publisher: Publisher | None = None
        self._refusal: BackendError | None = None
        self._last_shown: dict[Format, tuple[Feed, int]] = {}
        self._gone_s = clock.now_s()
        self._running = asyncio.Event()
        self._changed = asyncio.Event()
        self._close_reason: str | None = None
        self._output(settings.rendition)

    @property
    def state(self) -> StreamState:
        return self._machine.state

    @property
    def publisher(self) -> Publisher | None:
        """Who publishes now; for the relay of its audio."""
        return self._publisher

    @property
    def viewers(self) -> int:
        """Sessions that watch any view of this stream."""
        return self._source.broadcast.viewers + sum(b.viewers for b in self._outputs.values())

    async def run(self) -> None:
        """Live until closed, or until no publisher came for `waiting_s`; then end all viewers."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._board = Switchboard(
                    self.name,
                    self._backends,
                    self._backend,
                    self._fallback,
                    self._budgets,
                    self,
                    self._clock,
                    self._metrics,
                    tasks,
                )
                running = tasks.create_task(self._board.run())
                self._running.set()
                reason = await self._until_closed()
                self._apply(StreamEvent.DRAIN, reason)
                if self._publisher is not None:
                    tasks.create_task(self._send_away(self._publisher, reason))
                await self._board.drain(self.settings.drain_s)
                running.cancel()
        finally:
            self._apply(StreamEvent.CLOSE, self._close_reason or "cancelled")
            self._source.broadcast.close()
            for output in self._outputs.values():
                output.close()

    async def publish(self, publisher: Publisher) -> None:
        """Pass on the publisher's frames until it ends; this is the publisher's own task.

        Raises StreamTaken when another one is there and `takeover` is off, NoCapacity when the
        backend has no slot, UnknownStream when the stream is closing.
        """
        await self._running.wait()
        self._seat(publisher)
        try:
            async for frame in publisher:
                if self._publisher is not publisher:
                    return  # taken over, or closed
                self._take(frame)
                if self._refusal is not None:
                    raise self._refusal
        finally:
            self._unseat(publisher)

    def watch(
        self, view: View = View.UPSCALED, codec: Codec | None = None, profile: str | None = None
    ) -> Cursor:
        """A viewer's cursor; close it when the viewer is gone.

        Codec and profile default to the default rendition's. Raises UnknownStream when closed.
        """
        self._must_be_open()
        if view is View.SOURCE:
            return self._source.broadcast.cursor()
        default = self.settings.rendition
        rendition = dataclasses.replace(
            default, codec=codec or default.codec, profile=profile or default.profile
        )
        return self._output(rendition).cursor()

    def request_keyframe(self) -> None:
        """A viewer lost a picture; requests are merged to one keyframe per half second."""
        if self._keyframes.ask(self._clock.now_s()) and self._board is not None:
            self._board.request_keyframe()

    def request_source_keyframe(self) -> None:
        """The same for a viewer of the source view; the publisher is asked."""
        self._ask_publisher()

    def set_bitrate(self, bitrate_bps: int) -> None:
        """Encode all renditions at another bit rate from now on."""
        rendition = dataclasses.replace(self.settings.rendition, bitrate_bps=bitrate_bps)
        self.settings = dataclasses.replace(self.settings, rendition=rendition)
        self._viewers_changed()

    def switch(
        self, backend: str, *, mode: SwitchMode | None = None, reason: str = "asked"
    ) -> None:
        """Move to another backend; returns at once, events tell how it went."""
        if self._board is None:
            self._backend = backend
        else:
            self._board.switch(backend, mode, reason)

    async def close(self, reason: str) -> None:
        """End the publisher and all viewers; returns at once, `run` then ends."""
        if self._close_reason is None:
            self._close_reason = reason
            self._changed.set()

    def snapshot(self) -> StreamSnapshot:
        """All that the API tells of this stream, now."""
        figures, board, publisher = self._figures, self._board, self._publisher
        renditions = tuple(sorted(self._renditions(), key=lambda r: (r.codec, r.profile)))
        return StreamSnapshot(
            name=self.name,
            state=self._machine.state,
            reason=self._machine.reason,
            degraded=board is not None and board.degraded,
            backend=self._backend if board is None else board.backend,
            policy="fixed",
            publisher=None if publisher is None else figures.publisher(),
            output=dataclasses.replace(figures.output(), renditions=renditions),
            latency_ms=figures.latency_ms(),
            frames=figures.frames(
                None if publisher is None else publisher.counts,
                {} if board is None else board.dropped(),
            ),
            viewers=self.viewers,
        )

    # What the switchboard tells.

    def lane_options(self) -> LaneOptions:
        return LaneOptions(
            renditions=self._renditions(),
            stabilise=self.settings.stabilise,
            stream=self.name,
            fps=self._figures.ingest.fps,
        )

    def leads(self, encoded: EncodedFrame) -> bool:
        return _format(encoded.rendition) == _format(self.settings.rendition)

    def show(self, encoded: EncodedFrame, feed: Feed) -> None:
        kind = _format(encoded.rendition)
        before, last_pts = self._last_shown.get(kind, (None, -1))
        # A decoder cannot go on in another lane's frames but at a keyframe.
        if encoded.pts <= last_pts or (before is not feed and not encoded.keyframe):
            self._figures.drop("out_of_step")
            return
        self._last_shown[kind] = (feed, encoded.pts)
        self._output(encoded.rendition).put(encoded)
        if kind != _format(self.settings.rendition):
            return
        self._source.release(encoded.pts)
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

    # Parts.

    def _take(self, frame: Frame) -> None:
        now_s = self._clock.now_s()
        frame = dataclasses.replace(frame, pts=self._timeline.place(frame.pts, frame.arrived_s))
        self._figures.submitted(frame)
        self._source.keep(frame)
        if self._source_keyframes.due(now_s) and self._publisher is not None:
            self._publisher.request_keyframe()
        if self._board is None or (self.settings.idle is Idle.PAUSE and self.viewers == 0):
            self._figures.drop("idle")
            return
        if self._keyframes.due(now_s):
            self._board.request_keyframe()
        self._board.offer(frame)

    def _seat(self, publisher: Publisher) -> None:
        self._must_be_open()
        former = self._publisher
        if former is not None and not self.settings.takeover:
            raise StreamTaken(
                f"stream {self.name} already has a publisher; end it first or allow takeover",
                found=self.name,
            )
        if former is not None:
            self._unseat(former)
            assert self._tasks is not None  # seats are given only while running
            self._tasks.create_task(self._send_away(former, "taken_over"))
        self._publisher = publisher
        self._refusal = None
        self._timeline.restart()
        self._figures.ingest.clear()
        self._apply(StreamEvent.PUBLISHER, "taken over" if former is not None else "")
        self._changed.set()

    def _unseat(self, publisher: Publisher) -> None:
        if self._publisher is not publisher:
            return
        self._publisher = None
        self._gone_s = self._clock.now_s()
        self._figures.publisher_gone(publisher)
        if self._board is not None:
            self._board.finish()
        self._apply(StreamEvent.GONE, "publisher gone")
        self._changed.set()

    async def _send_away(self, publisher: Publisher, reason: str) -> None:
        await supervise(f"stream {self.name}: former publisher", publisher.aclose(reason))

    async def _until_closed(self) -> str:
        while self._close_reason is None:
            left_s = None
            if self._publisher is None:
                left_s = self._gone_s + self.settings.waiting_s - self._clock.now_s()
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                self._close_reason = f"no publisher for {self.settings.waiting_s:g} s"
            self._changed.clear()
        return self._close_reason

    def _must_be_open(self) -> None:
        closing = self._close_reason is not None
        if closing or self._machine.state in (StreamState.DRAINING, StreamState.CLOSED):
            raise UnknownStream(f"stream {self.name} is closed: {self._close_reason}")

    def _output(self, rendition: Rendition) -> Broadcast:
        kind = _format(rendition)
        output = self._outputs.get(kind)
        if output is None:
            output = Broadcast(self._clock, self.request_keyframe, self._viewers_changed)
            self._outputs[kind] = output
        return output

    def _renditions(self) -> frozenset[Rendition]:
        """The default one always, others while they are watched."""
        default = self.settings.rendition
        return frozenset(
            dataclasses.replace(default, codec=codec, profile=profile)
            for (codec, profile), output in self._outputs.items()
            if output.viewers or (codec, profile) == (default.codec, default.profile)
        )

    def _viewers_changed(self) -> None:
        if self._board is not None:
            self._board.set_renditions(self._renditions())

    def _ask_publisher(self) -> None:
        if self._source_keyframes.ask(self._clock.now_s()) and self._publisher is not None:
            self._publisher.request_keyframe()

    def _apply(self, event: StreamEvent, reason: str) -> None:
        before = self._machine.state
        if self._machine.apply(event, reason):
            log.info("stream %s: %s -> %s %s", self.name, before, self.state, reason)


def _format(rendition: Rendition) -> Format:
    return rendition.codec, rendition.profile
