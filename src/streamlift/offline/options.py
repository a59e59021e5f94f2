"""What a user may ask of `upscale`, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from streamlift.frames import Size, Stabilise

__all__ = ["Options", "Progress", "Result"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a file is upscaled.

    scale: of the result, by default the model's; size: instead, its width and height; what the
    model does not do itself a resampler does. codec: h264, hevc, av1, vp9; by default the usual
    one of the container. crf: quality, 0 best, by default good for that codec. fps: of numbered
    pictures. clobber: whether a target that is there may be replaced.
    """

    stabilise: Stabilise = Stabilise.OFF
    scale: Fraction | None = None
    size: Size | None = None
    codec: str | None = None
    crf: int | None = None
    hardware: bool = False
    fps: Fraction = Fraction(25)
    clobber: bool = True
    workers: int | None = None
    """Threads that upscale side by side where the model allows it; by default one a core."""

    def result_size(self, source: Size, model_scale: int) -> Size:
        """The size of the result for an upright source."""
        if self.size is not None:
            return self.size
        scale = self.scale or Fraction(model_scale)
        return Size(max(1, round(source.width * scale)), max(1, round(source.height * scale)))


@dataclass(frozen=True, slots=True)
class Progress:
    """Pictures done, pictures in all as far as is known, and pictures a second so far."""

    done: int
    total: int | None
    fps: float

    @property
    def left_s(self) -> float | None:
        if self.total is None or self.fps == 0:
            return None
        return max(0, self.total - self.done) / self.fps


@dataclass(frozen=True, slots=True)
class Result:
    """Pictures written; a line for each thing that was not kept as it was.

    `cut_off` says what lacks of the source, None for a whole one.
    """

    pictures: int
    warnings: tuple[str, ...] = ()
    cut_off: str | None = None
