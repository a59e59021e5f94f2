"""What a result cannot keep of its source: said, or refused, before the first picture."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from streamlift.errors import ConfigError
from streamlift.frames import Size
from streamlift.offline.description import Description
from streamlift.offline.options import Options
from streamlift.offline.steps import Notes, shown
from streamlift.offline.targets import Encoding, even

__all__ = ["judge_pixels", "judge_video", "pixel_aspect"]


def judge_video(
    target: Path, about: Description, encoding: Encoding, size: Size, notes: Notes
) -> None:
    """Refuse or name what this result cannot keep."""
    tags = about.colour
    if tags.hdr and encoding.bits < 10:
        raise ConfigError(
            f"{shown(target)}: this clip is HDR ({tags.name}, 10 bit), which {encoding.codec} "
            "does not hold here; take an .mkv, .mp4 or .mov, or --codec hevc or av1",
            found=tags.name,
        )
    if about.bits > encoding.bits:
        notes.say(f"{about.bits} bits a sample become {encoding.bits}")
    if about.dolby_vision:
        notes.say("the Dolby Vision layer is left out; the HDR picture below it is kept")
    for what in about.unkept:
        notes.say(f"{what} is left out")
    if about.subsampling not in ("420", "grey") and not tags.rgb:
        notes.say(f"colour at 4:{about.subsampling[1]}:{about.subsampling[2]} becomes 4:2:0")
    if about.alpha:
        notes.say("transparency is left out: the result is opaque")
    if about.captions:
        notes.say("captions inside the picture (CEA-608/708) are left out")
    if about.odd_angle:
        notes.say("the source is turned by an angle between the quarters, which is left out")
    if not encoding.odd and even(size) != size:
        notes.say(
            f"the result of {size} is written as {even(size)}: {encoding.codec} needs even "
            "sides; the last column or row is repeated"
        )


def pixel_aspect(about: Description, size: Size, options: Options) -> Fraction:
    """The pixel aspect of the result: as shown, the shape stays what it was."""
    if options.size is None:
        return about.upright_aspect
    before = about.upright
    shape = Fraction(before.width, before.height) * about.upright_aspect
    aspect = shape / Fraction(size.width, size.height)
    return Fraction(1) if abs(aspect - 1) < Fraction(1, 100) else aspect.limit_denominator(255)


def judge_pixels(target: Path, about: Description, notes: Notes) -> None:
    """The same for images and animations made of a video."""
    tags = about.colour
    if tags.hdr:
        raise ConfigError(
            f"{shown(target)}: this clip is HDR ({tags.name}), which is not turned into pictures; "
            "take a video as the target",
            found=tags.name,
        )
    if about.upright_aspect != 1:
        notes.say("the pixels of the source are not square, which pictures do not say")
    if about.odd_angle:
        notes.say("the source is turned by an angle between the quarters, which is left out")
    if about.alpha:
        notes.say("transparency is left out: the result is opaque")
