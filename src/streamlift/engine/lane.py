"""A lane: one stream's place on an engine, from decoded frames to encoded ones."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

from streamlift.clock import Clock
from streamlift.engine.checks import check_output
from streamlift.engine.encode import EncodeThread, Picture
from streamlift.engine.engine import Engine
from streamlift.engine.padding import crop_planes, pad_planes, padded_size
from streamlift.engine.stabilise import Stabiliser
from streamlift.errors import StreamliftError, UpscaleError
from streamlift.frames import (
    EncodedFrame,
    Frame,
    LaneOptions,
    Planes,
    Rendition,
    Size,
    Stabilise,
    StageTimes,
)
from streamlift.upscalers.base import Pixels, Upscaler, UpscaleSession

__all__ = ["EngineLane"]

logger = logging.getLogger(__name__)

MAX_QUEUED = 32
GAP_S = 0.5
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
        on_close: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._upscaler = upscaler
        self._device = device
        self._stream = options.stream
        self._max_age_s = max_age_s
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._on_close = on_close
        self._stabiliser = None if stabilise is Stabilise.OFF else Stabiliser(stabilise)
        # Shared with the engine thread, guarded by engine.changed.
        self._inbox: deque[Frame] = deque()
        self._finishing = False
        self._ended = False
        self._dropped: Counter[str] = Counter()
        # Engine thread only.
        self._session: UpscaleSession[Any] | None = None
        self._session_size: Size | None = None
        self._owed: deque[tuple[Frame, Planes, float]] = deque()
        self._last: Frame | None = None
        # Event loop only.
        self._out: deque[EncodedFrame] = deque()
        self._error: StreamliftError | None = None
        self._over = False
        self._closed = False
        self._arrived = asyncio.Event()
        spec = upscaler.spec
        self._encode = EncodeThread(
            options.stream,
            renditions=options.renditions,
            preset=preset,
            fps=options.fps,
            depth=4 + 2 * max(spec.first, spec.step + spec.lag),
            clock=clock,
            deliver=lambda encoded: self._post(self._deliver, encoded),
            done=lambda error: self._post(self._end, error),
        )
        engine.attach(self)

    # ---- ports.Lane, on the event loop ----

    @property
    def dropped(self) -> Mapping[str, int]:
        with self._engine.changed:
            return dict(self._dropped)

    def offer(self, frame: Frame) -> bool:
        with self._engine.changed:
            if self._finishing or self._ended:
                return False
            self._inbox.append(frame)
            self._drop_stale()
            self._engine.changed.notify_all()
        return True

    def finish(self) -> None:
        with self._engine.changed:
            self._finishing = True
            self._engine.changed.notify_all()

    def set_renditions(self, wanted: frozenset[Rendition]) -> None:
        self._encode.set_renditions(wanted)

    def request_keyframe(self) -> None:
        self._encode.request_keyframe()

    async def __aiter__(self) -> AsyncIterator[EncodedFrame]:
        while True:
            while self._out:
                yield self._out.popleft()
            if self._error is not None:
                raise self._error
            if self._over:
                return
            self._arrived.clear()
            await self._arrived.wait()

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
        self._end(None)
        self._on_close()

    # ---- engine.Work, on the engine thread ----

    @property
    def waiting_since_s(self) -> float | None:
        if self._ended:
            return None
        if self._inbox:
            return self._inbox[0].arrived_s
        return self._clock.now_s() if self._finishing else None

    def step(self) -> None:
        with self._engine.changed:
            self._drop_stale()
            frame = self._inbox.popleft() if self._inbox else None
            finishing = self._finishing and frame is None
        try:
            if frame is not None:
                self._take(frame)
            elif finishing:
                self._pay_and_forget()
                self._stop_working()
                self._encode.finish()
        except StreamliftError as error:
            self._fail(error)
        except Exception as error:  # a model may raise anything; it ends this lane only
            logger.exception(
                "stream %s: upscaler %s failed", self._stream, self._upscaler.spec.name
            )
            self._fail(UpscaleError(f"upscaler {self._upscaler.spec.name} failed: {error}"))

    def _take(self, frame: Frame) -> None:
        gap = self._last is not None and frame.arrived_s - self._last.arrived_s > GAP_S
        if self._session is not None and (gap or frame.size != self._session_size):
            self._pay_and_forget()
        self._last = frame
        if self._session is None:
            self._session = self._upscaler.open(padded_size(frame.size, self._multiple))
            self._session_size = frame.size
        started_s = self._clock.now_s()
        lr = pad_planes(frame.planes, padded_size(frame.size, self._multiple))
        self._owed.append((frame, lr, started_s))
        spec = self._upscaler.spec
        if spec.pixels is Pixels.YUV420:
            self._give(self._session.push(lr))
        else:
            self._give(self._to_planes(self._session.push(self._to_rgb(lr, frame)), frame))

    @property
    def _multiple(self) -> int:
        return self._upscaler.spec.multiple

    def _give(self, outputs: Iterable[Planes]) -> None:
        for hr in outputs:
            if not self._owed:
                raise UpscaleError("upscaler gave more frames than it took")
            frame, lr, started_s = self._owed.popleft()
            expected = lr.size.times(self._upscaler.spec.scale)
            check_output(lr.y, hr, expected)
            if self._stabiliser is not None:
                hr = self._stabiliser.apply(lr.y, hr)
            self._encode_later(frame, hr, started_s)

    def _encode_later(self, frame: Frame, hr: Planes, started_s: float) -> None:
        ready_s = self._clock.now_s()
        picture = Picture(
            planes=crop_planes(hr, frame.size.times(self._upscaler.spec.scale)),
            pts=frame.pts,
            colour=frame.colour,
            arrived_s=frame.arrived_s,
            ready_s=ready_s,
            stages=StageTimes(
                decode_s=frame.decode_s,
                queue_s=max(0.0, started_s - frame.arrived_s - frame.decode_s),
                upscale_s=ready_s - started_s,
            ),
        )
        if not self._encode.offer(picture):
            with self._engine.changed:
                self._dropped["encode_busy"] += 1

    def _pay_and_forget(self) -> None:
        """Deliver what the session owes, then forget it and what the stabiliser remembers."""
        session, self._session = self._session, None
        if session is None:
            return
        outputs: Iterable[Planes] = session.finish()
        if self._upscaler.spec.pixels is Pixels.RGB and self._owed:
            outputs = self._to_planes(outputs, self._owed[0][0])
        self._give(outputs)
        if self._owed:
            raise UpscaleError("upscaler ended owing frames", found=len(self._owed), expected=0)
        if self._stabiliser is not None:
            self._stabiliser.reset()

    def _to_rgb(self, lr: Planes, frame: Frame) -> Any:
        from streamlift.engine.yuv import planes_to_rgb

        return planes_to_rgb(lr, frame.colour, self._device)

    def _to_planes(self, groups: Iterable[Any], frame: Frame) -> Iterable[Planes]:
        from streamlift.engine.yuv import rgb_to_planes

        for group in groups:
            yield from rgb_to_planes(group, frame.colour)

    def _drop_stale(self) -> None:
        """Oldest first: late is lost. Called with the engine's lock held."""
        oldest_s = self._clock.now_s() - self._max_age_s
        while self._inbox and (
            len(self._inbox) > MAX_QUEUED or self._inbox[0].arrived_s < oldest_s
        ):
            self._inbox.popleft()
            self._dropped["stale"] += 1

    def _stop_working(self) -> None:
        with self._engine.changed:
            self._ended = True

    def _fail(self, error: StreamliftError) -> None:
        self._stop_working()
        self._session = None
        self._owed.clear()
        self._encode.abort()
        self._post(self._end, error)

    def _post(self, call: Callable[..., None], *args: object) -> None:
        """Hand something to the event loop; after the loop is gone there is nobody to tell."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *args)

    # ---- back on the event loop ----

    def _deliver(self, encoded: EncodedFrame) -> None:
        if len(self._out) >= _OUT_BOUND:
            self._out.popleft()
            self._dropped["undelivered"] += 1
        self._out.append(encoded)
        self._arrived.set()

    def _end(self, error: StreamliftError | None) -> None:
        self._error = self._error or error
        self._over = True
        self._arrived.set()
