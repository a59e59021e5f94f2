"""Stills, sequences and animations into the like: every channel and bit, picture by picture."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from streamlift.clock import Clock
from streamlift.errors import MediaError
from streamlift.frames import Size
from streamlift.offline.animations import read_animation, read_timing
from streamlift.offline.arrays import ArrayEnlarger, resized_pixels
from streamlift.offline.names import Numbered
from streamlift.offline.options import Options, Progress, Result
from streamlift.offline.sinks import ImageFiles, PixelSink, animation_file, several_pictures
from streamlift.offline.sources import Kind, moments, numbers_of, sequence_stills
from streamlift.offline.steps import Notes, shown
from streamlift.offline.stills import Still, check_still_size, pages_of, read_still, size_of
from streamlift.upscalers import Upscaler

__all__ = ["upscale_stills"]


def upscale_stills(
    source: Path,
    target: Path,
    kind: Kind,
    form: str,
    to_animation: bool,
    upscaler: Upscaler,
    *,
    device: str,
    options: Options,
    progress: Callable[[Progress], None] | None,
    clock: Clock,
) -> Result:
    """Upscale without video between. Raises as `upscale_file`."""
    notes = Notes()
    work = _Work(ArrayEnlarger(upscaler, device, clock), options, progress, clock, notes)
    if to_animation:
        return work.into_animation(source, target, kind, form)
    if kind is Kind.SEQUENCE:
        return work.sequence(source, target)
    if kind is Kind.ANIMATION:
        return work.frames(source, target, form)
    return work.still(source, target, form)


class _Work:
    """One run."""

    def __init__(
        self,
        enlarger: ArrayEnlarger,
        options: Options,
        progress: Callable[[Progress], None] | None,
        clock: Clock,
        notes: Notes,
    ) -> None:
        self._enlarger, self._options, self._notes = enlarger, options, notes
        self._progress, self._clock = progress, clock
        self._started_s = clock.now_s()

    def still(self, source: Path, target: Path, form: str) -> Result:
        still = read_still(source)
        pages = pages_of(source) if form == "tiff" else 1
        if pages > 1:
            self._notes.say(f"only the first of {pages} pages is taken")
        check_still_size(self._size(still), target)
        sink = ImageFiles(target, self._notes, numbers=(1,), clobber=self._options.clobber)
        sink.add(self._enlarged(still), Fraction(0))
        self._tell(1, 1)
        cut_off = None if still.whole else f"reading {shown(source)}: the picture is cut off"
        return Result(1, self._notes.lines, cut_off)

    def sequence(self, source: Path, target: Path) -> Result:
        sequence = Numbered.read(source)
        assert sequence is not None
        numbers = numbers_of(sequence, self._notes)
        if len(numbers.there) > 1 and Numbered.read(target) is None:
            raise several_pictures(target)
        written: list[int] = []
        sink = ImageFiles(target, self._notes, numbers=written, clobber=self._options.clobber)
        for number, still in sequence_stills(sequence, numbers, self._notes):
            written.append(number)
            sink.add(self._enlarged(still), Fraction(0))
            self._tell(sink.written, len(numbers.there))
        return self._result(source, sink)

    def frames(self, source: Path, target: Path, form: str) -> Result:
        frames = read_timing(source, form).frames
        if frames > 1 and Numbered.read(target) is None:
            raise several_pictures(target)
        sink = ImageFiles(target, self._notes, clobber=self._options.clobber)
        for moment in read_animation(source, form, self._notes):
            sink.add(self._enlarged(Still(moment.pixels)), moment.duration_s)
            self._tell(sink.written, frames)
        return self._result(source, sink)

    def into_animation(self, source: Path, target: Path, kind: Kind, form: str) -> Result:
        fps = self._options.fps
        frames, last_s, plays, total = (
            moments(source, kind, form, fps, self._notes),
            1 / fps,
            0,
            None,
        )
        if kind is Kind.ANIMATION:
            timing = read_timing(source, form)
            last_s, plays, total = timing.last_s, timing.plays, timing.frames
        first = next(frames, None)
        if first is None:
            raise MediaError(f"reading {shown(source)}: no picture in it can be read", found=0)
        size = self._size(Still(first.pixels))
        check_still_size(size, target)
        with animation_file(
            target, size, self._notes, plays=plays, last_s=last_s, clobber=self._options.clobber
        ) as sink:
            sink.add(self._enlarged(Still(first.pixels)), first.duration_s)
            for moment in frames:
                sink.add(self._enlarged(Still(moment.pixels)), moment.duration_s)
                self._tell(sink.written, total)
            sink.finish()
        return self._result(source, sink)

    def _size(self, still: Still) -> Size:
        return self._options.result_size(size_of(still.pixels), self._enlarger.scale)

    def _enlarged(self, still: Still) -> Still:
        pixels = self._enlarger.enlarge(still.pixels)
        return still.with_pixels(resized_pixels(pixels, self._size(still)))

    def _result(self, source: Path, sink: PixelSink) -> Result:
        if sink.written == 0:
            raise MediaError(f"reading {shown(source)}: no picture in it can be read", found=0)
        self._tell(sink.written, sink.written)
        return Result(sink.written, self._notes.lines)

    def _tell(self, done: int, total: int | None) -> None:
        if self._progress is not None:
            taken_s = self._clock.now_s() - self._started_s
            self._progress(Progress(done, total, done / taken_s if taken_s else 0.0))
