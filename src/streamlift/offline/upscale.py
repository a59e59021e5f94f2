"""Upscaling a file: what it is, what the target can hold, then pictures in, pictures out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from fractions import Fraction
from pathlib import Path

from av.container import InputContainer

from streamlift.clock import Clock, MonotonicClock
from streamlift.errors import MediaError
from streamlift.frames import Stabilise
from streamlift.offline.description import describe, main_video, opened
from streamlift.offline.enlarge import Enlarger, open_enlarger
from streamlift.offline.judging import judge_pixels, judge_video, pixel_aspect
from streamlift.offline.names import Numbered
from streamlift.offline.options import Options, Progress, Result
from streamlift.offline.overlap import ahead, behind
from streamlift.offline.pictures import Picture
from streamlift.offline.reading import Reader
from streamlift.offline.replacing import check_target, replacing
from streamlift.offline.sinks import (
    ImageFiles,
    Pictures,
    PixelSink,
    animation_file,
    several_pictures,
)
from streamlift.offline.sources import (
    ArraySource,
    Kind,
    describe_pixels,
    kind_of_source,
    moments,
    numbers_of,
)
from streamlift.offline.steps import Notes, shown
from streamlift.offline.still_work import upscale_stills
from streamlift.offline.stills import check_still_size
from streamlift.offline.targets import (
    ANIMATIONS,
    check_opens,
    choose_encoding,
    container_of,
    even,
    is_image,
)
from streamlift.offline.tracks import kept_along
from streamlift.offline.writing import VideoWriter, open_writer
from streamlift.upscalers import Upscaler

__all__ = ["upscale_file"]

_AHEAD, _BEHIND = 6, 4
"""Pictures read ahead and waiting to be written: what memory holds whatever the length."""


def upscale_file(
    source: Path,
    target: Path,
    upscaler: Upscaler,
    *,
    device: str = "cpu",
    options: Options | None = None,
    progress: Callable[[Progress], None] | None = None,
    clock: Clock | None = None,
) -> Result:
    """Upscale `source` into `target`.

    `source`: a video, an image, an animation, or a numbered sequence such as `in/%04d.png`.
    `target`: the same, by its suffix. It appears whole or not at all (a sequence: picture by
    picture). What the result does not keep is a line of its warnings. Raises ConfigError for what
    cannot be meant, MediaError (with the step and the file) when a file cannot be read or written,
    UpscaleError when the model fails.
    """
    options, clock = options or Options(), clock or MonotonicClock()
    check_target(source, target, clobber=options.clobber)
    kind, form = kind_of_source(source)
    to_images, to_animation = _forms(target, kind)
    if not (to_images or to_animation):
        container_of(target)  # a suffix that is unknown is said before all else
    spec = upscaler.spec
    in_time = kind is not Kind.STILL and (
        options.stabilise is not Stabilise.OFF or spec.chunked or spec.max_owed > 0
    )
    if kind is not Kind.VIDEO and (to_images or to_animation) and not in_time:
        return upscale_stills(
            source,
            target,
            kind,
            form,
            to_animation,
            upscaler,
            device=device,
            options=options,
            progress=progress,
            clock=clock,
        )
    job = _Job(source, target, kind, form, upscaler, device, options, progress, clock)
    return job.into_pixels(to_animation) if to_images or to_animation else job.into_video()


def _forms(target: Path, kind: Kind) -> tuple[bool, bool]:
    """Whether the target is images, or an animation."""
    suffix = target.suffix.lower()
    if suffix == ".webp" and kind is not Kind.STILL and Numbered.read(target) is None:
        return False, True
    if suffix in ANIMATIONS and suffix != ".webp":
        return False, True
    return is_image(target), False


class _Job:
    """One run on the video's path."""

    def __init__(
        self,
        source: Path,
        target: Path,
        kind: Kind,
        form: str,
        upscaler: Upscaler,
        device: str,
        options: Options,
        progress: Callable[[Progress], None] | None,
        clock: Clock,
    ) -> None:
        self._source, self._target, self._kind, self._form = source, target, kind, form
        self._upscaler, self._device, self._options = upscaler, device, options
        self._progress, self._clock = progress, clock
        self._notes = Notes()
        if kind is Kind.VIDEO:
            self._about = describe(source)
        else:
            self._about = describe_pixels(source, kind, form, options.fps, self._notes)
        self._size = options.result_size(self._about.upright, upscaler.spec.scale)

    def into_video(self) -> Result:
        options, about, target, notes = self._options, self._about, self._target, self._notes
        container = container_of(target)
        encoding, line = choose_encoding(
            target,
            codec=options.codec,
            crf=options.crf,
            bits=10 if about.bits > 8 else 8,
            hardware=options.hardware,
        )
        if line:
            notes.say(line)
        judge_video(target, about, encoding, self._size, notes)
        check_opens(encoding, self._size if encoding.odd else even(self._size), target)
        with (
            closing(self._enlarger(encoding.bits)) as enlarger,
            self._opened() as container_of_source,
            replacing(target, clobber=options.clobber) as part,
            open_writer(part, target, container) as output,
        ):
            reader = self._reader(container_of_source, encoding.bits, tracks=True)
            writer = VideoWriter(
                target,
                output,
                container,
                encoding,
                about,
                self._size,
                pixel_aspect(about, self._size, options),
                container_of_source,
                reader.start_offset_s,
                notes,
            )
            if isinstance(reader, Reader):
                reader.keep(writer.tracks)
            self._run(reader, enlarger, writer)
            writer.finish()
        return self._result(reader, writer.written)

    def into_pixels(self, to_animation: bool) -> Result:
        """Pictures of a video as images or an animation."""
        about, target = self._about, self._target
        bits = 10 if about.bits > 8 and not to_animation else 8
        judge_pixels(target, about, self._notes)
        check_still_size(self._size, target)
        several = about.expected is not None and about.expected > 1
        if several and not to_animation and Numbered.read(target) is None:
            raise several_pictures(target)
        with ExitStack() as stack:
            enlarger = stack.enter_context(closing(self._enlarger(bits)))
            opened_source = stack.enter_context(self._opened())
            sink: PixelSink
            if to_animation:
                sink = stack.enter_context(
                    animation_file(
                        target,
                        self._size,
                        self._notes,
                        plays=0,
                        last_s=1 / (about.rate or Fraction(25)),
                        clobber=self._options.clobber,
                    )
                )
            else:
                sink = ImageFiles(
                    target, self._notes, numbers=self._numbers(), clobber=self._options.clobber
                )
            reader = self._reader(opened_source, bits, tracks=False)
            pictures = Pictures(sink, about.colour, about.size, self._size, about.time_base)
            self._run(reader, enlarger, pictures)
            pictures.finish()
        return self._result(reader, pictures.written)

    def _enlarger(self, bits: int) -> Enlarger:
        return open_enlarger(
            self._upscaler,
            self._device,
            self._about,
            bits,
            stabilise=self._options.stabilise,
            clock=self._clock,
            workers=self._options.workers,
        )

    def _opened(self) -> AbstractContextManager[InputContainer | None]:
        return opened(self._source) if self._kind is Kind.VIDEO else nullcontext()

    def _reader(
        self, container: InputContainer | None, bits: int, *, tracks: bool
    ) -> Reader | ArraySource:
        if container is None:
            frames = moments(self._source, self._kind, self._form, self._options.fps, self._notes)
            return ArraySource(frames, self._about, bits)
        others = kept_along(container, main_video(container)) if tracks else []
        return Reader(self._source, container, self._about, others, self._notes, bits=bits)

    def _numbers(self) -> Sequence[int]:
        sequence = Numbered.read(self._source)
        return () if sequence is None else numbers_of(sequence, Notes()).there

    def _result(self, reader: Reader | ArraySource, written: int) -> Result:
        if written == 0:
            raise MediaError(
                f"reading {shown(self._source)}: no picture in it can be decoded", found=0
            )
        if self._progress is not None:
            self._progress(Progress(written, written, 0.0))
        return Result(written, self._notes.lines, reader.cut_off)

    def _run(
        self, reader: Reader | ArraySource, enlarger: Enlarger, writer: VideoWriter | Pictures
    ) -> None:
        started_s, done = self._clock.now_s(), 0

        def tell() -> None:
            if self._progress is None:
                return
            taken_s = self._clock.now_s() - started_s
            total = self._about.expected
            if total is None and reader.share > 0:
                total = max(done, round(reader.pictures / reader.share))
            self._progress(Progress(done, total, done / taken_s if taken_s else 0.0))

        with ahead(reader, _AHEAD) as items, behind(writer.take, _BEHIND) as writing:
            for item in items:
                if not isinstance(item, Picture):
                    writing.put(item)
                    continue
                for enlarged in enlarger.push(item):
                    writing.put(enlarged)
                    done += 1
                    tell()
            for enlarged in enlarger.finish():
                writing.put(enlarged)
                done += 1
                tell()
