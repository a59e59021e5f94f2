"""From frames to upscaled pictures: padding, colour, the session, checks, stabiliser, cropping.

Models see pixels; this is where the frames owed are kept, so that every output finds its time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from streamlift.clock import Clock
from streamlift.engine.checks import check_output
from streamlift.engine.cuts import Cuts
from streamlift.engine.ladder import Adjustable, Rung, take_rung
from streamlift.engine.padding import crop_planes, pad_planes, padded_size
from streamlift.engine.stabilise import Stabiliser
from streamlift.errors import UpscaleError
from streamlift.frames import Frame, Planes, Size, Stabilise
from streamlift.upscalers.base import OnCut, Parkable, Pixels, Upscaler, UpscaleSession

__all__ = ["UpscaleChain", "Upscaled"]


@dataclass(frozen=True, slots=True, eq=False)
class Upscaled:
    """One finished picture, the frame it was made of, and when work on that frame began."""

    frame: Frame
    planes: Planes
    started_s: float


class UpscaleChain:
    """One stream's way through one upscaler. Used by one thread."""

    def __init__(
        self, upscaler: Upscaler, device: str, stabilise: Stabilise, *, clock: Clock
    ) -> None:
        self._upscaler = upscaler
        self._device = device
        self._clock = clock
        self._stabiliser = None if stabilise is Stabilise.OFF else Stabiliser(stabilise)
        self._session: UpscaleSession[Any] | None = None
        self._size: Size | None = None
        self._owed: deque[tuple[Frame, Planes, float]] = deque()
        self._strength = stabilise
        self._rung: Rung | None = None
        self._parked: Parkable | None = None
        self._cuts = Cuts()

    @property
    def adjustable(self) -> bool:
        """True while a session is open that can spend less on a frame."""
        return isinstance(self._session, Adjustable)

    def set_rung(self, rung: Rung) -> None:
        """Spend this much on a frame from now on."""
        self._rung = rung
        take_rung(rung, session=self._session, stabiliser=self._stabiliser, strength=self._strength)

    def push(self, frame: Frame) -> Iterator[Upscaled]:
        """Take one frame; yield what is ready. A change of size pays out the old session first,
        and so does a scene cut where the upscaler is to start anew.

        Raises UpscaleError when the model fails or what it gives cannot be right.
        """
        spec = self._upscaler.spec
        cut = spec.on_cut is OnCut.RESTART and self._cuts.at(frame.planes.y)
        if cut or frame.size != self._size:
            yield from self.finish()
        padded = padded_size(frame.size, spec.multiple)
        self._resume()
        if self._session is None:
            self._session = self._upscaler.open(padded)
            self._size = frame.size
            if self._rung is not None:
                self.set_rung(self._rung)
        lr = pad_planes(frame.planes, padded)
        self._owed.append((frame, lr, self._clock.now_s()))
        if spec.pixels is Pixels.YUV420:
            yield from self._match(self._session.push(lr))
        else:
            yield from self._match(self._to_planes(self._session.push(self._to_rgb(lr, frame))))

    def park(self) -> None:
        """Move the session's device memory to the host; the next push or finish brings it back."""
        session: object = self._session
        if self._parked is None and isinstance(session, Parkable):
            session.park()
            self._parked = session

    def finish(self) -> Iterator[Upscaled]:
        """Yield every frame owed, then forget the session and what the stabiliser remembers."""
        session, self._session = self._session, None
        if session is None:
            return
        self._resume()
        outputs: Iterable[Planes] = session.finish()
        if self._upscaler.spec.pixels is Pixels.RGB:
            outputs = self._to_planes(outputs)
        yield from self._match(outputs)
        if self._owed:
            raise UpscaleError("upscaler ended owing frames", found=len(self._owed), expected=0)
        if self._stabiliser is not None:
            self._stabiliser.reset()

    def _resume(self) -> None:
        parked, self._parked = self._parked, None
        if parked is not None:
            parked.resume()

    def _match(self, outputs: Iterable[Planes]) -> Iterator[Upscaled]:
        scale = self._upscaler.spec.scale
        for hr in outputs:
            if not self._owed:
                raise UpscaleError("upscaler gave more frames than it took")
            frame, lr, started_s = self._owed.popleft()
            check_output(lr.y, hr, lr.size.times(scale))
            if self._stabiliser is not None:
                hr = self._stabiliser.apply(lr.y, hr, pts=frame.pts, motion=frame.motion)
            yield Upscaled(frame, crop_planes(hr, frame.size.times(scale)), started_s)

    def _to_rgb(self, lr: Planes, frame: Frame) -> Any:
        from streamlift.engine.yuv import planes_to_rgb

        return planes_to_rgb(lr, frame.colour, self._device)

    def _to_planes(self, groups: Iterable[Any]) -> Iterator[Planes]:
        from streamlift.engine.yuv import rgb_to_planes

        for group in groups:
            # Colour tags do not change within a session's owed frames but at a new publisher.
            yield from rgb_to_planes(group, self._owed[0][0].colour)
