"""The encode thread of a lane: high-resolution pictures in, access units of every rendition out."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from streamlift.clock import Clock
from streamlift.codec import AdjustableEncoder, VideoEncoder, encoded_bitrate_bps, open_encoder
from streamlift.codec.resample import Resampler
from streamlift.engine.ladder import PresetChoice
from streamlift.errors import StreamliftError, UpscaleError
from streamlift.frames import (
    Colour,
    EncodedFrame,
    Planes,
    Rendition,
    Size,
    StageTimes,
    Target,
    Unencoded,
)
from streamlift.sizes import placed_in

__all__ = ["EncodeThread", "Picture"]

logger = logging.getLogger(__name__)

_ASSUMED_FPS = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One finished high-resolution picture on its way to the encoders.

    `source`: the publisher's size. `shaped`: the target that it has been brought to already.
    """

    planes: Planes
    pts: int
    colour: Colour
    arrived_s: float
    late_after_s: float
    ready_s: float
    stages: StageTimes
    source: Size
    shaped: Target | None = None

    def overdue_s(self, now_s: float) -> float:
        """How long it has waited in all queues since it was due; not for the model's own work."""
        return now_s - self.late_after_s - self.stages.upscale_s


class EncodeThread:
    """Owns the encoders of one lane; one open encoder a rendition, whatever the viewers do.

    `deliver`, `skip`, `done`, `turn` and `worked` are called on this thread: `skip` for a picture
    that has waited for longer than `age_limit_s(pts)` since it was due, because the machine
    encodes less than comes, and that in the fastest way already; `turn(overdue_s, fastest)` when
    a picture's turn comes, which says whether it is encoded; `worked(ready_s)` when it is.

    Pictures are brought to the size that the renditions ask for, else to `own`, the backend's; None
    leaves them as the model gave them. A size that cannot be coded is let be: the one before goes
    on, and what is delivered says so in its rendition.
    """

    def __init__(
        self,
        name: str,
        *,
        renditions: frozenset[Rendition],
        preset: str,
        fps: float | None,
        depth: int,
        clock: Clock,
        own: Target | None = None,
        deliver: Callable[[EncodedFrame | Unencoded], None],
        skip: Callable[[], None],
        done: Callable[[StreamliftError | None], None],
        age_limit_s: Callable[[int], float] = lambda pts: 0.5,
        turn: Callable[[float, bool], bool] = lambda overdue_s, fastest: True,
        worked: Callable[[float], None] = lambda ready_s: None,
    ) -> None:
        self._renditions = renditions
        self._choice = PresetChoice(clock, preset)
        self._fps = fps or _ASSUMED_FPS
        self._clock = clock
        self._own = own
        self._resampler = Resampler()
        self._deliver = deliver
        self._skip = skip
        self._done = done
        self._age_limit_s = age_limit_s
        self._turn = turn
        self._worked = worked
        self._pictures: queue.Queue[Picture | None] = queue.Queue(maxsize=depth)
        self._encoders: dict[Rendition, VideoEncoder] = {}
        self._opened: tuple[Size, Colour, str] | None = None  # what the encoders were opened for
        self._target: Target | None = None  # that is in use; None: `own`
        self._refused: frozenset[Target | None] = frozenset()  # one, until another is asked for
        self._last_pts: int | None = None
        self._begin_after: int | None = None  # pts
        self._busy_since_s: float | None = None
        self._keyframe_wanted = threading.Event()
        self._aborted = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"encode-{name}", daemon=True)
        self._thread.start()

    @property
    def busy_s(self) -> float:
        """Seconds that the present picture has been encoded for; 0 when idle."""
        since_s = self._busy_since_s
        return 0.0 if since_s is None else self._clock.now_s() - since_s

    def offer(self, picture: Picture) -> bool:
        """Queue a picture; False when the queue is full and it was dropped."""
        try:
            self._pictures.put_nowait(picture)
        except queue.Full:
            return False
        return True

    def finish(self) -> None:
        """Encode what is queued, then call `done`."""
        while not self._aborted.is_set():
            try:
                self._pictures.put(None, timeout=0.1)
            except queue.Full:
                continue
            return

    def abort(self) -> None:
        """End as soon as the current picture is done; `done` is not called."""
        self._aborted.set()
        try:
            self._pictures.put_nowait(None)
        except queue.Full:
            return  # a full queue wakes the thread anyway

    def request_keyframe(self) -> None:
        self._keyframe_wanted.set()

    def set_renditions(self, wanted: frozenset[Rendition], after: int | None = None) -> None:
        """`after`: the pts of the last picture on its way; where nothing was encoded so far, the
        first keyframe is the picture after it, and no earlier one."""
        if not self._renditions and wanted:
            self._begin_after = after
        self._renditions = wanted

    def hurry(self, hurried: bool) -> None:
        """Take the fastest preset, or the usual one again; the next picture is a keyframe then."""
        self._choice.hurried = hurried

    def _run(self) -> None:
        error: StreamliftError | None = None
        try:
            while (picture := self._pictures.get()) is not None and not self._aborted.is_set():
                self._busy_since_s = self._clock.now_s()
                encoded = self._encode(picture)
                self._busy_since_s = None
                if encoded:
                    self._worked(picture.ready_s)
        except StreamliftError as found:
            error = found
        except Exception as found:  # ends this lane only; PyAV raises many types
            logger.exception("encoder failed")
            error = UpscaleError(f"encoder failed: {found}")
        finally:
            self._close_encoders()
        if not self._aborted.is_set():
            self._done(error)

    def _encode(self, picture: Picture) -> bool:
        """Encode and deliver it; False where it was left out."""
        if self._last_pts is not None and picture.pts <= self._last_pts:
            return False  # a replayed frame that was delivered already
        now_s = self._clock.now_s()
        overdue_s = picture.overdue_s(now_s)
        was_fastest = self._choice.fastest
        # What waited for the model first is not the encoder's fault.
        preset = self._choice.next(min(overdue_s, now_s - picture.ready_s))
        if not self._turn(overdue_s, was_fastest):
            return False
        if overdue_s > self._age_limit_s(picture.pts) and was_fastest:
            self._skip()
            return False
        self._last_pts = picture.pts
        wanted = self._renditions
        if not wanted or (self._begin_after is not None and picture.pts <= self._begin_after):
            self._close_encoders()
            self._deliver(Unencoded(picture.pts))
            return True
        keyframe = self._keyframe_wanted.is_set()
        if keyframe:
            self._keyframe_wanted.clear()
        target = self._asked(picture, wanted)
        if target == self._target:
            for encoded in self._coded(picture, wanted, preset, target, keyframe=keyframe):
                self._deliver(encoded)
            return True
        for encoded in self._resized(picture, wanted, preset, target, keyframe=keyframe):
            self._deliver(encoded)
        return True

    def _asked(self, picture: Picture, wanted: frozenset[Rendition]) -> Target | None:
        """The target for this picture: one that has been brought to another keeps the last."""
        target = next(iter(wanted)).target
        if target in self._refused:
            return self._target
        self._refused = frozenset()
        shaped = picture.shaped
        return target if shaped is None or shaped == (target or self._own) else self._target

    def _resized(
        self,
        picture: Picture,
        wanted: frozenset[Rendition],
        preset: str,
        target: Target | None,
        *,
        keyframe: bool,
    ) -> list[EncodedFrame]:
        """The first picture of another target, or where that fails, one more of the last."""
        try:
            frames = list(self._coded(picture, wanted, preset, target, keyframe=keyframe))
        except Exception as error:  # noqa: BLE001 - PyAV and OpenCV raise many types
            logger.warning("target %s is refused: %s", target, error)
            self._refused = frozenset({target})
            self._opened = None
            return list(self._coded(picture, wanted, preset, self._target, keyframe=True))
        self._target = target
        return frames

    def _coded(
        self,
        picture: Picture,
        wanted: frozenset[Rendition],
        preset: str,
        target: Target | None,
        *,
        keyframe: bool,
    ) -> Iterator[EncodedFrame]:
        planes = self._shaped(picture, target or self._own)
        opened = (planes.size, picture.colour, preset)
        if opened != self._opened:
            self._close_encoders()
            self._opened = opened
        self._follow(wanted)
        for rendition in wanted:
            encoder = self._encoders.get(rendition)
            if encoder is None:
                encoder = self._encoders[rendition] = open_encoder(
                    rendition, planes.size, self._fps, preset=preset, colour=picture.colour
                )
            data, is_key = encoder.encode(planes, picture.pts, keyframe=keyframe)
            encode_s = self._clock.now_s() - picture.ready_s
            yield EncodedFrame(
                pts=picture.pts,
                size=planes.size,
                rendition=replace(rendition, target=target),
                keyframe=is_key,
                data=data,
                arrived_s=picture.arrived_s,
                stages=replace(picture.stages, encode_s=encode_s),
            )

    def _shaped(self, picture: Picture, target: Target | None) -> Planes:
        """The picture in the size of a target; as it is where none is given or it is so already."""
        if target is None or target == picture.shaped:
            return picture.planes
        layout = placed_in(picture.planes.size, target.output(picture.source), target.fit)
        return self._resampler.laid_out(picture.planes, layout, picture.colour)

    def _follow(self, wanted: frozenset[Rendition]) -> None:
        """Where only the bit rate changed, the encoder runs on: opening one costs a keyframe."""
        spare = self._encoders.keys() - wanted
        for rendition in wanted - self._encoders.keys():
            for former in spare:
                if _runs_on(self._encoders[former], former, rendition):
                    self._encoders[rendition] = self._encoders.pop(former)
                    spare.remove(former)
                    break
        for former in spare:
            self._encoders.pop(former).close()

    def _close_encoders(self) -> None:
        for encoder in self._encoders.values():
            encoder.close()
        self._encoders.clear()


def _runs_on(encoder: VideoEncoder, former: Rendition, wanted: Rendition) -> bool:
    """Give the running encoder the new bit rate, if it is of the same format and takes it."""
    if replace(former, target=wanted.target) == wanted:
        return True  # another target, of the same size
    if replace(former, bitrate_bps=wanted.bitrate_bps, target=wanted.target) != wanted:
        return False
    if not isinstance(encoder, AdjustableEncoder):
        return False
    bitrate_bps = encoded_bitrate_bps(wanted)
    return encoder.set_bitrate(bitrate_bps) == bitrate_bps
