"""Sizes read from headers."""

from __future__ import annotations

import random
from fractions import Fraction

import av
import pytest
from av.video.codeccontext import VideoCodecContext
from tests.clips import coded_clip

from streamlift.codec.dimensions import picture_size
from streamlift.frames import Codec, Size


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("size", [Size(128, 128), Size(192, 160), Size(514, 130)])
def test_a_keyframe_tells_its_size_and_other_pictures_none(codec: Codec, size: Size) -> None:
    units = coded_clip(size, 3, codec, stamped=False).units
    assert picture_size(codec, units[0]) == size
    assert picture_size(codec, units[1]) is None


@pytest.mark.parametrize("profile", ["baseline", "main", "high", "high422", "high444"])
@pytest.mark.parametrize("options", [{}, {"interlaced": "1"}, {"cqm": "jvt"}])
def test_every_profile_is_read(profile: str, options: dict[str, str]) -> None:
    if profile == "baseline" and options:
        pytest.skip("baseline has neither fields nor matrices")
    formats = {"high422": "yuv422p", "high444": "yuv444p"}
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height = 326, 188
    encoder.pix_fmt = formats.get(profile, "yuv420p")
    encoder.framerate = Fraction(25)
    encoder.options = {"profile": profile, "x264-params": _joined(options)}
    frame = av.VideoFrame(326, 188, encoder.pix_fmt)
    data = b"".join(bytes(p) for f in (frame, None) for p in encoder.encode(f))
    assert picture_size(Codec.H264, data) == Size(326, 188)


@pytest.mark.parametrize("codec", list(Codec))
def test_damage_raises_nothing(codec: Codec) -> None:
    chance = random.Random(3)
    unit = coded_clip(Size(128, 128), 1, codec, stamped=False).units[0]
    for _ in range(2000):
        damaged = bytearray(unit[: chance.randrange(len(unit))][:60])
        for _ in range(chance.randrange(4)):
            if damaged:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        picture_size(codec, bytes(damaged))


def _joined(options: dict[str, str]) -> str:
    return ":".join(f"{key}={value}" for key, value in options.items())
