"""A lane: one stream's place on an engine, from decoded frames to encoded ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress

from streamlift.clock import Clock
from streamlift.engine.capacity import Need, Share
from streamlift.engine.chain import UpscaleChain, Upscaled
from streamlift.engine.cpu_budget import CpuBudget
from streamlift.engine.encode import EncodeThread, Picture
from streamlift.engine.engine import Engine
from streamlift.engine.inbox import Inbox
from streamlift.engine.ladder import Ladder, Rung
from streamlift.engine.launched import Underway
from streamlift.errors import StreamliftError, UpscaleError
from streamlift.frames import (
    EncodedFrame,
    Frame,
    LaneOptions,
    Rendition,
    Stabilise,
    StageTimes,
    Unencoded,
)
from streamlift.mailbox import Mailbox
from streamlift.upscalers.base import Upscaler

__all__ = ["EngineLane"]

logger = logging.getLogger(__name__)

GAP_S = 0.5
OTHERS_HANG_S = 0.4
"""How much longer another lane may hold the engine's thread than this one's own step may take."""
_ENCODE_DEPTH = 16
"""After a stall, what waited for the model (500 ms) comes out of a fast one all at once."""
_OUT_BOUND = 128


class EngineLane:
    """Fits `routing.ports.Lane`. Opened on the event loop; works on the engine's thread."""

    def __init__(
        self,
        engine: Engine,
        upscaler: Upscaler,
        device: str,
        options: LaneOptions,
        *,
        preset: str,
        max_age_s: float,
        clock: Clock,
        stabilise: Stabilise,
        share: Share,
        on_close: Callable[[EngineLane], None],
        backlog_age_s: float | None = None,
        begin: Rung = Rung.FULL,
        budget: CpuBudget | None = None,
        need: Need | None = None,
    ) -> None:
        """`need`: what the stream needs of the share; it knows the size that the pictures come in.
        `begin`: how much to spend on a frame at first. `max_age_s`: how long a frame may wait
        in all queues together once it is due; `backlog_age_s`: the same for frames that a failed
        lane owed, until this one has caught up. `budget`: of this machine's processors."""
        self._engine = engine
        self._upscaler_name = upscaler.spec.name
        self._stream = options.stream
        self.guest = options.guest
        self._share = share
        self._clock = clock
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._on_close = on_close
        # Shared with the engine thread, guarded by engine.changed.
        spec = upscaler.spec
        need = need or Need()
        self._inbox = Inbox(
            clock,
            share=share,
            need=need,
            fps=options.fps,
            max_age_s=max_age_s,
            backlog_age_s=backlog_age_s,
            chunk=spec.step,
            most=_most_of(budget, options.guest),
        )
        self._fastest_coding = False
        self._finishing_since_s: float | None = None
        self._park_since_s: float | None = None
        self._ended = False
        # Engine thread only, but for reading `upscaled`.
        self.upscaled = 0
        self._chain = UpscaleChain(upscaler, device, stabilise, clock=clock)
        self._last_arrived_s: float | None = None
        self._underway: Underway[Upscaled] | None = None
        self._is_last = False
        steady = stabilise is not Stabilise.OFF
        self._ladder = Ladder(clock, begin=begin, without=() if steady else (Rung.UNSTEADIED,))
        self._drops_seen = 0
        # Event loop only.
        self._last_offered: int | None = None  # pts
        self._out: Mailbox[EncodedFrame | Unencoded] = Mailbox(_OUT_BOUND)
        self._closed = False
        self._encode = EncodeThread(
            options.stream,
            renditions=options.renditions,
            preset=preset,
            fps=options.fps,
            depth=max(_ENCODE_DEPTH, 4 + 2 * max(spec.first, spec.step + spec.lag)),
            clock=clock,
            own=need.own,
            deliver=lambda encoded: self._post(self._deliver, encoded),
            skip=self._count_skip,
            done=lambda error: self._post(self._out.end, error),
            age_limit_s=self._inbox.age_limit_s,
            turn=self._encoder_turn,
            worked=self._encoder_worked,
        )
        self._aim(options.renditions)
        if begin is not Rung.FULL:
            self._spend(self._ladder.rung)
        if budget is not None and self.guest:
            budget.guest_came()
        engine.attach(self)

    # ---- ports.Lane, on the event loop ----

    @property
    def dropped(self) -> Mapping[str, int]:
        with self._engine.changed:
            return dict(self._inbox.dropped)

    @property
    def leaving(self) -> bool:
        return False

    @property
    def stuck_s(self) -> float:
        """Another lane's step counts later: whose it is notices first, and is to blame for it."""
        busy_s = self._engine.busy_s
        if not self._engine.steps(self):
            busy_s -= OTHERS_HANG_S
        return max(busy_s, self._encode.busy_s)

    @property
    def degraded(self) -> bool:
        """True while the upscaler gives no more than bicubic, to keep up."""
        return self._ladder.degraded

    @property
    def can_spend_less(self) -> bool:
        return self._chain.adjustable and not self._ladder.degraded

    def offer(self, frame: Frame) -> bool:
        with self._engine.changed:
            if self._finishing_since_s is not None or self._ended:
                return False
            if not self._inbox.put(frame):
                return False
            self._last_offered = frame.pts
            self._park_since_s = None
            self._engine.changed.notify_all()
        self._note_processor_time()
        return True

    def finish(self) -> None:
        with self._engine.changed:
            if self._finishing_since_s is None:
                self._finishing_since_s = self._clock.now_s()
            self._engine.changed.notify_all()

    def park(self) -> None:
        self._share.ask(0.0)  # others may have its part meanwhile
        self._inbox.rate.forget()
        with self._engine.changed:
            self._park_since_s = self._clock.now_s()
            self._engine.changed.notify_all()

    def set_renditions(self, wanted: frozenset[Rendition]) -> None:
        self._aim(wanted)
        self._encode.set_renditions(wanted, self._last_offered)

    def request_keyframe(self) -> None:
        self._encode.request_keyframe()

    def __aiter__(self) -> AsyncIterator[EncodedFrame | Unencoded]:
        return self._out

    async def aclose(self) -> None:
        """Never waits for the model: a hung one is left behind with its thread."""
        if self._closed:
            return
        self._closed = True
        with self._engine.changed:
            self._ended = True
            self._inbox.clear()
        self._engine.detach(self)
        self._encode.abort()
        self._out.end()
        if self._budget is not None and self.guest:
            self._budget.guest_left()
        self._share.release()
        self._on_close(self)

    # ---- engine.Work, on the engine thread ----

    @property
    def flight(self) -> Underway[Upscaled] | None:
        return self._underway

    @property
    def due_s(self) -> float:
        known = [s for s in (self._chain.due_s, self._inbox.due_s) if s is not None]
        return min(known, default=self._clock.now_s())

    @property
    def waiting_since_s(self) -> float | None:
        if self._ended:
            return None
        if (oldest_s := self._inbox.waiting_since_s) is not None:
            return oldest_s
        # From then on, not now: else it would never have its turn beside lanes that are behind.
        if self._finishing_since_s is not None:
            return self._finishing_since_s
        return self._park_since_s

    def step(self) -> None:
        try:
            if self._underway is None:
                self._begin()
            self._go_on()
        except StreamliftError as error:
            self._fail(error)
        except Exception as error:  # a model may raise anything; it ends this lane only
            logger.exception("stream %s: upscaler %s failed", self._stream, self._upscaler_name)
            self._fail(UpscaleError(f"upscaler {self._upscaler_name} failed: {error}"))

    def _begin(self) -> None:
        with self._engine.changed:
            frame = self._inbox.take()
            finishing = self._finishing_since_s is not None and frame is None
            parking = self._park_since_s is not None and frame is None
            if parking:
                self._park_since_s = None
        if frame is not None:
            before_s, self._last_arrived_s = self._last_arrived_s, frame.arrived_s
            gap = before_s is not None and frame.arrived_s - before_s > GAP_S
            self._underway = self._chain.begin(frame, anew=gap)
        elif finishing:
            self._underway, self._is_last = self._chain.begin_finish(), True
        elif parking:
            self._chain.park()

    def _go_on(self) -> None:
        """Encode what is underway, as far as that can be had without waiting for a device."""
        while (underway := self._underway) is not None and underway.ready:
            outputs = underway.take()
            if outputs is not None:
                self._encode_all(outputs)
            if outputs is None or self._ended:
                self._underway = None
                self._done()

    def _done(self) -> None:
        if self._is_last:
            self._stop_working()
            self._encode.finish()
            return
        with self._engine.changed:
            self._inbox.done()
        self._note_processor_time()
        if self._chain.adjustable and not self.guest:  # a guest gives way with frames instead
            self._take_steps()

    def _take_steps(self) -> None:
        """Spend less on a frame when frames are dropped, more again when none were for long."""
        with self._engine.changed:
            dropped = self._inbox.dropped
            drops = dropped.total() - dropped["over_share"]
        new, self._drops_seen = drops - self._drops_seen, drops
        rung = self._ladder.note_drops(new) if new else self._ladder.note_frame()
        if rung is not None:
            self._spend(rung)
            logger.warning(
                "stream %s: %s now runs at %s", self._stream, self._upscaler_name, rung.name.lower()
            )

    def _spend(self, rung: Rung) -> None:
        self._chain.set_rung(rung)
        with self._engine.changed:
            self._inbox.works_differently()
        self._encode.hurry(rung >= Rung.FAST_CODING)

    def _note_processor_time(self) -> None:
        """On whatever thread it was spent."""
        if self._budget is not None:
            self._budget.note()

    def _encode_all(self, outputs: Iterable[Upscaled]) -> None:
        for output in outputs:
            if self._ended:
                return  # closed meanwhile: what a slow model still owes is not worth its time
            self.upscaled += 1
            frame, ready_s = output.frame, self._clock.now_s()
            picture = Picture(
                planes=output.planes,
                pts=frame.pts,
                colour=frame.colour,
                arrived_s=frame.arrived_s,
                late_after_s=frame.late_after_s,
                ready_s=ready_s,
                source=frame.size,
                shaped=output.shaped,
                stages=StageTimes(
                    decode_s=frame.decode_s,
                    queue_s=max(0.0, output.started_s - frame.arrived_s - frame.decode_s),
                    upscale_s=ready_s - output.started_s,
                ),
            )
            if not self._encode.offer(picture):
                self._count_skip()

    def _count_skip(self) -> None:
        with self._engine.changed:
            self._inbox.dropped["encode_busy"] += 1

    # ---- on the encode thread ----

    def _encoder_turn(self, overdue_s: float, fastest: bool) -> bool:
        """A faster preset comes before any frame is left out for the encoder's sake."""
        with self._engine.changed:
            if fastest is not self._fastest_coding:
                self._fastest_coding = fastest
                self._inbox.encoders.clear()
            return self._inbox.encoder_overdue(overdue_s if fastest else 0.0)

    def _encoder_worked(self, ready_s: float) -> None:
        with self._engine.changed:
            self._inbox.encoders.note(ready_s, self._clock.now_s())
        self._note_processor_time()

    def _stop_working(self) -> None:
        with self._engine.changed:
            self._ended = True

    def fail(self, error: StreamliftError) -> None:
        """End it from outside, on the event loop: its reader gets the error."""
        self._stop_working()
        self._encode.abort()
        self._out.end(error)

    def _fail(self, error: StreamliftError) -> None:
        self._underway = None
        self._stop_working()
        self._encode.abort()
        self._post(self._out.end, error)

    def _post(self, call: Callable[..., None], *args: object) -> None:
        """Hand something to the event loop; after the loop is gone there is nobody to tell."""
        # Asking whether it is closed would be too early: it may close before the call.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)

    # ---- back on the event loop ----

    def _aim(self, wanted: frozenset[Rendition]) -> None:
        """At the size that is wanted, where pictures are resampled before they are encoded."""
        if wanted:
            need, target = self._inbox.need, next(iter(wanted)).target
            self._chain.set_target(target or need.own)
            if target != need.wanted:
                need.wanted = target
                with self._engine.changed:
                    self._inbox.encoders.clear()

    def _deliver(self, encoded: EncodedFrame | Unencoded) -> None:
        if not self._out.put(encoded) and not self._closed:
            with self._engine.changed:
                self._inbox.dropped["undelivered"] += 1


def _most_of(budget: CpuBudget | None, guest: bool) -> Callable[[], float]:
    """Which part of the frames a lane takes; all of them if it need not care for the machine."""
    if budget is None:
        return lambda: 1.0
    return budget.most_of_guests if guest else budget.most
