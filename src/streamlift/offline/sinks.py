"""Where pictures go besides a video: image files, one or numbered, and animations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from streamlift.errors import MediaError
from streamlift.frames import Size
from streamlift.offline.animations import AnimationSink, animation_sink
from streamlift.offline.arrays import resized_pixels
from streamlift.offline.colour import ColourTags
from streamlift.offline.names import Numbered
from streamlift.offline.pictures import Picture, frame_of
from streamlift.offline.reading import TrackPacket
from streamlift.offline.replacing import replacing
from streamlift.offline.steps import Notes, step
from streamlift.offline.stills import Pixels, Still, check_still_size, encode_still, size_of

__all__ = ["AnimationFile", "ImageFiles", "Pictures", "PixelSink", "pixels_of"]


class PixelSink(Protocol):
    """Takes finished frames in order."""

    written: int

    def add(self, still: Still, duration_s: Fraction) -> None: ...

    def finish(self) -> None: ...


class ImageFiles:
    """One image, or a numbered sequence; each file appears whole.

    `numbers`: those of the source; without them pictures count from 1.
    """

    def __init__(
        self, target: Path, notes: Notes, *, numbers: Sequence[int] = (), clobber: bool = True
    ) -> None:
        self._target, self._notes, self._clobber = target, notes, clobber
        self._sequence = Numbered.read(target)
        self._numbers = numbers
        self.written = 0

    def add(self, still: Still, duration_s: Fraction) -> None:
        """Raises MediaError when there is no room for a second picture."""
        if self.written and self._sequence is None:
            raise several_pictures(self._target)
        path = self._target
        if self._sequence is not None:
            numbered = self.written < len(self._numbers)
            path = self._sequence.path(
                self._numbers[self.written] if numbered else self.written + 1
            )
        check_still_size(size_of(still.pixels), path)
        data = encode_still(still, path, self._notes)
        with replacing(path, clobber=self._clobber) as part, step("writing", path):
            part.write_bytes(data)
        self.written += 1

    def finish(self) -> None:
        """Every picture is on disk already."""


class AnimationFile:
    """GIF, APNG or animated WebP; all frames of one size."""

    def __init__(self, sink: AnimationSink, size: Size, notes: Notes) -> None:
        self._sink, self._size, self._notes = sink, size, notes
        self.written = 0

    def add(self, still: Still, duration_s: Fraction) -> None:
        pixels = still.pixels
        if pixels.dtype == np.uint16:
            self._notes.say("16 bits a sample become 8: animations hold no more")
            pixels = (pixels >> 8).astype(np.uint8)
        if pixels.shape[2] == 2:
            pixels = pixels[..., (0, 0, 0, 1)]
        if pixels.shape[2] == 1:
            pixels = pixels.repeat(3, axis=2)
        self._sink.add(resized_pixels(pixels, self._size), duration_s)
        self.written += 1

    def finish(self) -> None:
        self._sink.finish()


@contextmanager
def animation_file(
    target: Path,
    size: Size,
    notes: Notes,
    *,
    plays: int,
    last_s: Fraction,
    clobber: bool,
) -> Iterator[AnimationFile]:
    """An animation that appears whole at the end of the block."""
    with replacing(target, clobber=clobber) as part:
        sink = animation_sink(part, target, size, plays, last_s)
        try:
            yield AnimationFile(sink, size, notes)
        finally:
            sink.close()


class Pictures:
    """A sink of pixels on the video's path: takes pictures, leaves sound and subtitles out."""

    def __init__(
        self, sink: PixelSink, tags: ColourTags, matrix_size: Size, size: Size, base: Fraction
    ) -> None:
        self._sink, self._size, self._base = sink, size, base
        self._tags = tags if not tags.rgb else ColourTags(tags.matrix_of(matrix_size))
        self._tags = ColourTags(self._tags.matrix_of(matrix_size), full_range=self._tags.full_range)
        self._waiting: Picture | None = None

    @property
    def written(self) -> int:
        return self._sink.written

    def take(self, item: Picture | TrackPacket) -> None:
        """A picture is written when the next one tells how long it is shown."""
        if not isinstance(item, Picture):
            return
        if self._waiting is not None:
            self._put(self._waiting, item.time - self._waiting.time)
        self._waiting = item

    def finish(self) -> None:
        if self._waiting is not None:
            self._put(self._waiting, self._waiting.duration)
        self._sink.finish()

    def _put(self, picture: Picture, ticks: int) -> None:
        pixels = resized_pixels(pixels_of(picture, self._tags), self._size)
        self._sink.add(Still(pixels), ticks * self._base)


def pixels_of(picture: Picture, tags: ColourTags) -> Pixels:
    """RGB (H, W, 3), uint8, or uint16 of a picture with 10 bits."""
    frame = frame_of(picture, tags)
    return frame.to_ndarray(format="rgb24" if picture.bits == 8 else "rgb48le")


def several_pictures(target: Path) -> MediaError:
    return MediaError(
        f"the source holds several pictures, {target.name} only one; give a numbered target such "
        "as out/%05d.png, an animation, or a video",
        found=target.name,
    )
