"""From frames to upscaled pictures: padding, colour, the session, checks, stabiliser, cropping.

Models see pixels; this is where the frames owed are kept, so that every output finds its time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamlift.clock import Clock
from streamlift.engine.checks import check_output
from streamlift.engine.cuts import Cuts
from streamlift.engine.ladder import Adjustable, Rung, take_rung
from streamlift.engine.launched import Group, There, Underway
from streamlift.engine.padding import crop_planes, pad_planes, padded_size
from streamlift.errors import UpscaleError
from streamlift.frames import Frame, Planes, Size, Stabilise, Target
from streamlift.upscalers.base import OnCut, Parkable, Pixels, Upscaler, UpscaleSession

if TYPE_CHECKING:
    from streamlift.engine.rgb import RgbWay
    from streamlift.engine.stabilise import Stabiliser

__all__ = ["UpscaleChain", "Upscaled"]


@dataclass(frozen=True, slots=True, eq=False)
class Upscaled:
    """One finished picture, the frame it was made of, and when work on that frame began.

    `shaped`: the target that it has been brought to; None for the model's own size.
    """

    frame: Frame
    planes: Planes
    started_s: float
    shaped: Target | None = None


class UpscaleChain:
    """One stream's way through one upscaler. Used by one thread.

    `push` and `finish` wait for their pictures. `begin` and `begin_finish` only launch them where
    there is a device to compute them: the next frame may begin once all of them were taken.
    """

    def __init__(
        self, upscaler: Upscaler, device: str, stabilise: Stabilise, *, clock: Clock
    ) -> None:
        self._upscaler = upscaler
        self._device = device
        self._clock = clock
        self._rgb: RgbWay | None = None
        on_device = Stabilise.OFF
        if upscaler.spec.pixels is Pixels.RGB:
            from streamlift.engine.rgb import RgbWay

            on_device = stabilise if device != "cpu" else Stabilise.OFF
            self._rgb = RgbWay(device, on_device)
        self._stabiliser: Stabiliser | None = None
        if stabilise is not Stabilise.OFF and on_device is Stabilise.OFF:
            from streamlift.engine.stabilise import Stabiliser

            self._stabiliser = Stabiliser(stabilise)
        self._session: UpscaleSession[Any] | None = None
        self._size: Size | None = None
        self._owed: deque[tuple[Frame, Planes, float]] = deque()
        self._unmade = 0  # of these: neither made nor launched
        self._strength = stabilise
        self._rung: Rung | None = None
        self._parked: Parkable | None = None
        self._cuts = Cuts()

    def set_target(self, target: Target | None) -> None:
        """Bring pictures to this size where they are on a GPU and that costs next to nothing there;
        whoever gets others resamples them. From any thread; for what is pushed from now on."""
        if self._rgb is not None and self._device != "cpu":
            self._rgb.wanted = target

    @property
    def adjustable(self) -> bool:
        """True while a session is open that can spend less on a frame."""
        return isinstance(self._session, Adjustable)

    @property
    def due_s(self) -> float | None:
        """When the oldest frame that is owed was due; None if none is."""
        return self._owed[0][0].late_after_s if self._owed else None

    def set_rung(self, rung: Rung) -> None:
        """Spend this much on a frame from now on."""
        self._rung = rung
        take_rung(rung, session=self._session, stabiliser=self._stabiliser, strength=self._strength)

    def push(self, frame: Frame) -> Iterator[Upscaled]:
        """Take one frame; yield what is ready. A change of size pays out the old session first,
        and so does a scene cut where the upscaler is to start anew.

        Raises UpscaleError when the model fails or what it gives cannot be right.
        """
        for group in self._make(frame):
            yield from self._match(group)

    def begin(self, frame: Frame, *, anew: bool = False) -> Underway[Upscaled]:
        """As `push`; `anew`: pays out the session first, as after a gap."""
        return self._underway(self._make(frame, anew=anew))

    def finish(self) -> Iterator[Upscaled]:
        """Yield every frame owed, then forget the session and what the stabiliser remembers."""
        for group in self._make_rest():
            yield from self._match(group)

    def begin_finish(self) -> Underway[Upscaled]:
        return self._underway(self._make_rest())

    def park(self) -> None:
        """Move the session's device memory to the host; the next push or finish brings it back."""
        session: object = self._session
        if self._parked is None and isinstance(session, Parkable):
            session.park()
            self._parked = session

    def _underway(self, groups: Iterator[Group]) -> Underway[Upscaled]:
        launch = self._rgb is not None and self._rgb.launches_all
        return Underway(groups, self._match, launch=launch)

    def _make(self, frame: Frame, *, anew: bool = False) -> Iterator[Group]:
        spec = self._upscaler.spec
        cut = spec.on_cut is OnCut.RESTART and self._cuts.at(frame.planes.y)
        if cut or anew or frame.size != self._size:
            yield from self._make_rest()
        padded = padded_size(frame.size, spec.multiple)
        self._resume()
        if self._session is None:
            self._session = self._upscaler.open(padded)
            self._size = frame.size
            if self._rung is not None:
                self.set_rung(self._rung)
        lr = pad_planes(frame.planes, padded)
        self._owed.append((frame, lr, self._clock.now_s()))
        self._unmade += 1
        if self._rgb is None:
            yield from self._counted(There(hr) for hr in self._session.push(lr))
        else:
            groups = self._session.push(self._rgb.to_rgb(lr, frame))
            yield from self._counted(self._rgb.launch(groups, self._session))

    def _make_rest(self) -> Iterator[Group]:
        session, self._session = self._session, None
        if session is None:
            return
        self._resume()
        if self._rgb is None:
            yield from self._counted(There(hr) for hr in session.finish())
        else:
            yield from self._counted(self._rgb.launch(session.finish(), session))
        if self._unmade:
            raise UpscaleError("upscaler ended owing frames", found=self._unmade, expected=0)
        for rememberer in (self._stabiliser, self._rgb):
            if rememberer is not None:
                rememberer.reset()

    def _counted(self, groups: Iterator[Group]) -> Iterator[Group]:
        for group in groups:
            self._unmade -= group.count
            if self._unmade < 0:
                raise UpscaleError("upscaler gave more frames than it took")
            yield group

    def _resume(self) -> None:
        parked, self._parked = self._parked, None
        if parked is not None:
            parked.resume()

    def _match(self, group: Group) -> Iterator[Upscaled]:
        scale = self._upscaler.spec.scale
        shaped = group.shaped
        for hr in group.wait():
            frame, lr, started_s = self._owed.popleft()
            whole = lr.size.times(scale) if shaped is None else shaped.output(frame.size)
            check_output(lr.y, hr, whole)
            if self._stabiliser is not None:
                hr = self._stabiliser.apply(lr.y, hr, pts=frame.pts, motion=frame.motion)
            if shaped is None:
                hr = crop_planes(hr, frame.size.times(scale))
            yield Upscaled(frame, hr, started_s, shaped)
