"""Sizes of pictures, and the size that a stream's pictures are to come out in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from streamlift.errors import UnsupportedSize

__all__ = [
    "LEAST_SIDE",
    "MOST_MACROBLOCKS",
    "MOST_SCALE",
    "Box",
    "Fit",
    "Layout",
    "Size",
    "Target",
    "macroblocks",
    "placed_in",
]

MOST_MACROBLOCKS = 36_864
"""Of a picture at level 5.2, the highest that is coded for: 4096x2304 (ITU-T H.264, table A-1)."""
MOST_SCALE = 4.0
LEAST_SIDE = 64
_ROUNDING = 0.01
"""How far a size may be outside of 1 to 4 times: sides are rounded to even ones."""


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def times(self, scale: int) -> Size:
        return Size(self.width * scale, self.height * scale)


def macroblocks(size: Size) -> int:
    """Blocks of 16x16 that a coded picture has."""
    return math.ceil(size.width / 16) * math.ceil(size.height / 16)


class Fit(StrEnum):
    """How a picture goes into a size of another aspect, as CSS has it for `object-fit`."""

    CONTAIN = "contain"  # whole, with black bars
    COVER = "cover"  # filling it, what is over is cut off
    STRETCH = "stretch"  # out of proportion


@dataclass(frozen=True, slots=True)
class Target:
    """The size that pictures come out in: a factor of the publisher's sides, or a size.

    scale: 1 to 4. size: even sides, at least 64 and together at most 36,864 macroblocks. `fit` is
    for a size of another aspect than the publisher's. Raises UnsupportedSize for anything else.
    """

    scale: float | None = None
    size: Size | None = None
    fit: Fit = Fit.CONTAIN

    def __post_init__(self) -> None:
        if (self.scale is None) == (self.size is None):
            raise UnsupportedSize("a target is either a scale or a size")
        if self.scale is not None and not 1 <= self.scale <= MOST_SCALE:
            raise UnsupportedSize(
                f"a target of {self.scale:g} times the publisher's size",
                found=self.scale,
                expected=f"1 to {MOST_SCALE:g}",
            )
        size = self.size
        if size is not None and (
            size.width % 2 or size.height % 2 or min(size.width, size.height) < LEAST_SIDE
        ):
            raise UnsupportedSize(
                f"a target of {size}",
                found=str(size),
                expected=f"even sides of at least {LEAST_SIDE}",
            )
        if size is not None:
            _must_be_codable(size, f"a target of {size}")

    def __str__(self) -> str:
        return f"{self.scale:g} times" if self.size is None else str(self.size)

    def output(self, source: Size) -> Size:
        """What a publisher's picture of `source` becomes; sides are even.

        A factor that would be beyond the encoder is lowered to what it codes, for a publisher may
        change its size at any time.
        """
        if self.size is not None:
            return self.size
        assert self.scale is not None  # one of the two is given
        scale = self.scale
        while macroblocks(out := _times(source, scale)) > MOST_MACROBLOCKS:
            scale *= 0.98
        return out

    def check(self, source: Size) -> None:
        """Raises UnsupportedSize for what a publisher's picture of `source` should not become:
        more than an encoder codes, smaller than it is, or more than four times as large."""
        if self.size is None:
            assert self.scale is not None  # one of the two is given
            whole = _times(source, self.scale)
            _must_be_codable(whole, f"{self.scale:g} times {source} is {whole}, which")
            return
        least, most = _enlargement(source, self.size, self.fit)
        if least < 1 - _ROUNDING or most > MOST_SCALE + _ROUNDING:
            shown = f"{most:.3g}" if most > MOST_SCALE + _ROUNDING else f"{least:.3g}"
            raise UnsupportedSize(
                f"in {self.size} the publisher's picture of {source} would be enlarged {shown} "
                "times",
                found=str(self.size),
                expected=f"1 to {MOST_SCALE:g} times {source}",
            )


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a picture, in pixels; left and top are even, as is the size but at an odd edge."""

    left: int
    top: int
    size: Size


@dataclass(frozen=True, slots=True)
class Layout:
    """Which part of a picture is shown, and where in one of size `out`; the rest is black."""

    out: Size
    shown: Box
    place: Box

    def halved(self) -> Layout:
        """The same for a chroma plane."""
        return Layout(_half(self.out), _half_box(self.shown), _half_box(self.place))


def placed_in(picture: Size, out: Size, fit: Fit) -> Layout:
    """How a picture lies in `out` (even sides), centred."""
    whole, all_of_it = Box(0, 0, picture), Box(0, 0, out)
    match fit:
        case Fit.STRETCH:
            return Layout(out, whole, all_of_it)
        case Fit.COVER:
            factor = max(out.width / picture.width, out.height / picture.height)
            part = Size(_even(out.width / factor), _even(out.height / factor))
            return Layout(out, _centred(part, picture), all_of_it)
        case _:
            factor = min(out.width / picture.width, out.height / picture.height)
            part = Size(_even(picture.width * factor), _even(picture.height * factor))
            return Layout(out, whole, _centred(part, out))


def _centred(part: Size, whole: Size) -> Box:
    width, height = min(part.width, whole.width), min(part.height, whole.height)
    # An edge that rounding would leave over goes with the part: nobody wants a bar of two pixels.
    width = whole.width if whole.width - width <= 2 else width
    height = whole.height if whole.height - height <= 2 else height
    left, top = (whole.width - width) // 4 * 2, (whole.height - height) // 4 * 2
    return Box(left, top, Size(width, height))


def _enlargement(source: Size, out: Size, fit: Fit) -> tuple[float, float]:
    """The smaller and the larger factor of the two sides."""
    across, down = out.width / source.width, out.height / source.height
    if fit is Fit.STRETCH:
        return min(across, down), max(across, down)
    factor = max(across, down) if fit is Fit.COVER else min(across, down)
    return factor, factor


def _half_box(box: Box) -> Box:
    return Box(box.left // 2, box.top // 2, _half(box.size))


def _half(size: Size) -> Size:
    return Size((size.width + 1) // 2, (size.height + 1) // 2)


def _times(source: Size, scale: float) -> Size:
    return Size(_even(source.width * scale), _even(source.height * scale))


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))


def _must_be_codable(size: Size, what: str) -> None:
    if macroblocks(size) > MOST_MACROBLOCKS:
        raise UnsupportedSize(
            f"{what} is more than an encoder's highest level allows",
            found=f"{size}: {macroblocks(size)} macroblocks of 16x16",
            expected=f"at most {MOST_MACROBLOCKS}, such as 4096x2304",
        )
