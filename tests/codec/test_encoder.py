"""Live encoding: one access unit a picture, at once, a keyframe only when it is wanted."""

from __future__ import annotations

import dataclasses

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from tests.clips import SMALL, TICKS, decode, picture

from streamlift.codec import (
    H264Encoder,
    VideoEncoder,
    encoded_bitrate_bps,
    is_keyframe,
    nal_types,
    open_encoder,
)
from streamlift.codec.decoder import picture_of
from streamlift.errors import UpscaleError
from streamlift.frames import Codec, Colour, Plane, Rendition, Size

SIZE = Size(192, 160)


@pytest.fixture(params=["h264", "vp8"])
def codec(request: pytest.FixtureRequest) -> Codec:
    return Codec(request.param)


@pytest.fixture
def encoder(codec: Codec) -> VideoEncoder:
    return _open(codec)


def test_every_picture_gives_one_access_unit_at_once(encoder: VideoEncoder, codec: Codec) -> None:
    units = _encode(encoder, 10)
    pictures = decode(units, codec)
    assert len(pictures) == 10
    assert {(p.width, p.height) for p in pictures} == {(SIZE.width, SIZE.height)}


def test_a_keyframe_comes_when_asked_and_only_then(encoder: VideoEncoder, codec: Codec) -> None:
    units = _encode(encoder, 60, keyframes={0, 33})
    assert [n for n, unit in enumerate(units) if is_keyframe(codec, unit)] == [0, 33]


def test_it_says_itself_what_is_a_keyframe(encoder: VideoEncoder) -> None:
    flags = [encoder.encode(picture(SIZE, n), n * TICKS, keyframe=n == 4)[1] for n in range(6)]
    encoder.close()
    assert flags == [True, False, False, False, True, False]


def test_a_hard_cut_makes_no_keyframe_of_its_own(encoder: VideoEncoder, codec: Codec) -> None:
    chance = np.random.default_rng(3)
    units = []
    for number in range(8):
        shown = picture(SIZE, number)
        if number >= 4:
            noise = chance.integers(16, 235, shown.y.shape, dtype=np.uint8)
            shown = dataclasses.replace(shown, y=noise)
        units.append(encoder.encode(shown, number * TICKS, keyframe=False)[0])
    encoder.close()
    assert [is_keyframe(codec, unit) for unit in units] == [True] + 7 * [False]


def test_the_picture_is_still_the_picture(encoder: VideoEncoder, codec: Codec) -> None:
    (shown,) = decode(_encode(encoder, 1), codec)
    assert _psnr(picture_of(shown).y, picture(SIZE, 0).y) > 34


def test_a_picture_of_another_size_is_refused(encoder: VideoEncoder) -> None:
    with pytest.raises(UpscaleError, match="size differs"):
        encoder.encode(picture(Size(128, 128), 0), 0, keyframe=True)
    encoder.close()


def test_an_encoder_that_was_never_used_can_be_closed(encoder: VideoEncoder) -> None:
    encoder.close()


def test_cropped_views_are_encoded_as_well(encoder: VideoEncoder, codec: Codec) -> None:
    large = picture(Size(256, 256), 0)
    view = dataclasses.replace(
        large, y=large.y[:160, :192], u=large.u[:80, :96], v=large.v[:80, :96]
    )
    data, _ = encoder.encode(view, 0, keyframe=True)
    encoder.close()
    (shown,) = decode([data], codec)
    assert _psnr(picture_of(shown).y, view.y) > 34


@pytest.mark.parametrize("colour", [Colour(), Colour("bt709"), Colour("bt709", full_range=True)])
def test_colour_tags_reach_the_viewer(colour: Colour) -> None:
    rendition = Rendition(Codec.H264, 1_000_000)
    encoder = open_encoder(rendition, SIZE, 25, preset="superfast", colour=colour)
    (shown,) = decode(_encode(encoder, 1), Codec.H264)
    assert int(shown.colorspace) == (1 if colour.matrix == "bt709" else 6)
    assert (int(shown.color_range) == 2) is colour.full_range


@pytest.mark.parametrize(("profile", "code"), [("High", 100), ("Baseline", 66)])
def test_profile_and_level_stand_in_the_stream(profile: str, code: int) -> None:
    encoder = H264Encoder(Size(1024, 1024), 25, 6_000_000, profile=profile)
    data, _ = encoder.encode(picture(Size(1024, 1024), 0), 0, keyframe=True)
    encoder.close()
    at = data.index(b"\0\0\1\x67") + 4
    assert data[at] == code
    assert data[at + 2] == 32
    assert 6 not in nal_types(data)[:1], "nothing comes before the parameter sets"


def test_the_bit_rate_of_a_running_encoder_can_be_lowered_and_raised_again() -> None:
    encoder = H264Encoder(Size(256, 256), 25, 2_000_000)
    chance = np.random.default_rng(0)
    rates: list[float] = []
    for wanted in (2_000_000, 500_000, 2_000_000):
        assert encoder.set_bitrate(wanted) == wanted
        sizes = []
        for number in range(60):
            shown = picture(Size(256, 256), number)
            noise = chance.integers(60, 180, shown.y.shape, dtype=np.uint8)
            shown = dataclasses.replace(shown, y=noise)
            data, key = encoder.encode(shown, number * TICKS, keyframe=False)
            assert key is (number == 0 and not rates) or not key
            sizes.append(len(data))
        rates.append(sum(sizes[30:]) * 8 * 25 / 30)
    encoder.close()
    high, low, again = rates
    assert low < 0.5 * high
    assert again > 0.8 * high


def test_no_rate_above_the_opening_one_is_promised() -> None:
    encoder = H264Encoder(SIZE, 25, 1_000_000)
    assert encoder.set_bitrate(9_000_000) == 1_000_000
    encoder.close()


def _open(codec: Codec) -> VideoEncoder:
    rendition = Rendition(codec, 2_000_000, "High" if codec is Codec.H264 else "")
    return open_encoder(rendition, SIZE, 25, preset="superfast", colour=Colour())


def _encode(
    encoder: VideoEncoder, count: int, keyframes: frozenset[int] | set[int] = frozenset({0})
) -> list[bytes]:
    units = [
        encoder.encode(picture(SIZE, n), n * TICKS, keyframe=n in keyframes)[0]
        for n in range(count)
    ]
    encoder.close()
    return units


def _psnr(a: Plane, b: Plane) -> float:
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def test_the_decoder_needs_no_second_picture_to_show_the_first() -> None:
    context = av.CodecContext.create("h264", "r")
    assert isinstance(context, VideoCodecContext)
    context.thread_count = 1
    units = _encode(_open(Codec.H264), 3)
    shown = [len(context.decode(av.Packet(unit))) for unit in units]
    assert shown == [1, 1, 1]


@pytest.mark.parametrize(
    ("bitrate_bps", "thin_bps"), [(6_000_000, 2_000_000), (3_000_000, 1_500_000)]
)
def test_the_rendition_for_thin_links_is_baseline_at_a_lower_rate(
    bitrate_bps: int, thin_bps: int
) -> None:
    thin = Rendition(Codec.H264, bitrate_bps, "High", thin=True)
    assert encoded_bitrate_bps(thin) == thin_bps
    encoder = open_encoder(thin, SMALL, 25, preset="ultrafast", colour=Colour())
    data, _ = encoder.encode(picture(SMALL, 0), 0, keyframe=True)
    encoder.close()
    sps = data.index(b"\x67") + 1
    assert data[sps] == 66, "profile_idc of Baseline"
