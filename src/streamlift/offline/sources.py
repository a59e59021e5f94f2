"""What a source is among the kinds of file, and pictures out of those that are no video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from streamlift.errors import MediaError
from streamlift.offline.animations import Moment, read_animation, read_timing
from streamlift.offline.colour import ColourTags
from streamlift.offline.description import Description, Light, Turn
from streamlift.offline.names import Numbered, kind_of
from streamlift.offline.pictures import Picture, picture_of_frame
from streamlift.offline.steps import TAKEN, Notes, shown, step
from streamlift.offline.stills import Pixels, Still, read_still, size_of

__all__ = [
    "ArraySource",
    "Kind",
    "Numbers",
    "describe_pixels",
    "kind_of_source",
    "moments",
    "numbers_of",
]


class Kind(StrEnum):
    """What a source or target is."""

    VIDEO = "video"
    STILL = "still"
    SEQUENCE = "sequence"
    ANIMATION = "animation"


@dataclass(frozen=True, slots=True)
class Numbers:
    """A sequence's pictures; `missing` are the numbers that lack between the first and the last."""

    there: tuple[int, ...]
    missing: tuple[int, ...]


def kind_of_source(source: Path) -> tuple[Kind, str]:
    """The kind, and the form by its first bytes ("" for a video). Raises MediaError."""
    if Numbered.read(source) is not None:
        return Kind.SEQUENCE, ""
    with step("reading", source, TAKEN), source.open("rb") as file:
        form = kind_of(file.read(256))
    if form == "heic":
        raise MediaError(
            f"reading {shown(source)}: it is a HEIC photo, which is stored in tiles that nothing "
            "here puts together; save it as JPEG, PNG or AVIF first",
            found="HEIC",
        )
    if form == "jpeg" and source.suffix.lower() in (".mjpeg", ".mjpg"):
        return Kind.VIDEO, ""  # one JPEG after the other
    if form in ("gif", "apng", "webp animation", "avif animation"):
        return Kind.ANIMATION, form
    return (Kind.STILL, form) if form else (Kind.VIDEO, "")


def numbers_of(sequence: Numbered, notes: Notes) -> Numbers:
    """The numbers that are there; a gap is said. Raises MediaError when nothing is there."""
    there = sequence.numbers()
    have = set(there)
    missing = tuple(n for n in range(there[0], there[-1]) if n not in have)
    if missing:
        named = ", ".join(shown(sequence.path(n)) for n in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        notes.say(f"{named}{more} lack in the sequence; the picture before each is held for it")
    return Numbers(tuple(there), missing)


def sequence_stills(
    sequence: Numbered, numbers: Numbers, notes: Notes
) -> Iterator[tuple[int, Still]]:
    """Each picture with its number; one that cannot be read is left out and said."""
    for number in numbers.there:
        try:
            still = read_still(sequence.path(number))
        except MediaError as error:
            notes.say(f"left out: {error}")
            continue
        if not still.whole:
            notes.say(f"{shown(sequence.path(number))} is cut off; what is there was taken")
        yield number, still


def moments(source: Path, kind: Kind, form: str, fps: Fraction, notes: Notes) -> Iterator[Moment]:
    """A still, a sequence or an animation as frames with durations."""
    if kind is Kind.ANIMATION:
        yield from read_animation(source, form, notes)
        return
    if kind is Kind.STILL:
        yield Moment(read_still(source).pixels, 1 / fps)
        return
    sequence = Numbered.read(source)
    assert sequence is not None
    waiting: tuple[int, Still] | None = None
    for number, still in sequence_stills(sequence, numbers_of(sequence, notes), notes):
        if waiting is not None:
            yield Moment(waiting[1].pixels, (number - waiting[0]) / fps)
        waiting = number, still
    if waiting is not None:
        yield Moment(waiting[1].pixels, 1 / fps)


def describe_pixels(
    source: Path, kind: Kind, form: str, fps: Fraction, notes: Notes
) -> Description:
    """The description of a source that is no video. Raises MediaError."""
    first = next(moments(source, kind, form, fps, Notes()), None)
    if first is None:
        raise MediaError(f"reading {shown(source)}: no picture in it can be read", found=0)
    pictures, rate = 1, fps
    if kind is Kind.ANIMATION:
        timing = read_timing(source, form)
        pictures, rate = timing.frames, Fraction(25)
    elif (sequence := Numbered.read(source)) is not None:
        pictures = len(numbers_of(sequence, Notes()).there)
    opaque = np.iinfo(first.pixels.dtype).max
    alpha = Still(first.pixels).alpha and bool((first.pixels[..., -1] < opaque).any())
    base = Fraction(1, 1000) if kind is Kind.ANIMATION else 1 / fps
    return Description(
        size=size_of(first.pixels),
        turn=Turn(),
        odd_angle=False,
        pixel_aspect=Fraction(1),
        colour=ColourTags(rgb=True),
        bits=8 * first.pixels.dtype.itemsize,
        subsampling="444",
        alpha=alpha,
        interlaced=False,
        light=Light(),
        dolby_vision=False,
        captions=False,
        time_base=base,
        rate=rate,
        start_s=Fraction(0),
        free_clock=False,
        pictures=pictures,
        duration_s=None,
    )


class ArraySource:
    """Frames of a source that is no video, as pictures on the video's path."""

    share = 0.0
    cut_off: str | None = None
    start_offset_s = Fraction(0)

    def __init__(self, frames: Iterator[Moment], about: Description, bits: int) -> None:
        self._frames, self._about, self._bits = frames, about, bits
        self.pictures = 0

    def __iter__(self) -> Iterator[Picture]:
        at_s = Fraction(0)
        for moment in self._frames:
            self.pictures += 1
            base = self._about.time_base
            yield picture_of_frame(
                _frame(moment.pixels),
                bits=self._bits,
                tags=self._about.colour,
                turn=Turn(),
                time=round(at_s / base),
                duration=round(moment.duration_s / base),
            )
            at_s += moment.duration_s


def _frame(pixels: Pixels) -> av.VideoFrame:
    """An RGB frame; alpha is left out."""
    channels = pixels.shape[2]
    colour = pixels[..., :-1] if channels in (2, 4) else pixels
    if colour.shape[2] == 1:
        colour = colour.repeat(3, axis=2)
    form = "rgb24" if colour.dtype == np.uint8 else "rgb48le"
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(colour), format=form)
