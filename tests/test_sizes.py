"""Target sizes: what becomes of a publisher's size, where it lies in it, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from streamlift.codec import h264_level
from streamlift.errors import UnsupportedSize
from streamlift.sizes import (
    LEAST_SIDE,
    MOST_MACROBLOCKS,
    MOST_SCALE,
    Fit,
    Size,
    Target,
    macroblocks,
    placed_in,
)

sources = st.builds(Size, st.integers(64, 1280), st.integers(64, 1280))
sizes = st.builds(
    Size,
    st.integers(LEAST_SIDE // 2, 2560).map(lambda half: 2 * half),
    st.integers(LEAST_SIDE // 2, 1440).map(lambda half: 2 * half),
).filter(lambda size: macroblocks(size) <= MOST_MACROBLOCKS)
fits = st.sampled_from(Fit)


@pytest.mark.parametrize(
    ("source", "target", "out"),
    [
        (Size(512, 512), Target(scale=1.5), Size(768, 768)),
        (Size(640, 360), Target(scale=1.5), Size(960, 540)),
        (Size(640, 360), Target(scale=3), Size(1920, 1080)),
        (Size(515, 511), Target(scale=1.5), Size(772, 766)),
        (Size(512, 512), Target(size=Size(1280, 720)), Size(1280, 720)),
        (Size(1280, 1280), Target(scale=1), Size(1280, 1280)),
    ],
)
def test_a_target_of_a_source_is_what_a_person_would_work_out(
    source: Size, target: Target, out: Size
) -> None:
    assert target.output(source) == out
    target.check(source)


@given(sources, st.floats(1, MOST_SCALE))
@example(Size(1280, 1280), 4.0)
def test_a_scale_gives_even_sides_that_can_be_coded_and_the_sources_aspect(
    source: Size, scale: float
) -> None:
    target = Target(scale=scale)
    out = target.output(source)
    assert (out.width % 2, out.height % 2) == (0, 0)
    h264_level(out, 30)  # raises for what no level allows
    across, down = out.width / source.width, out.height / source.height
    assert abs(across - down) <= 1 / source.width + 1 / source.height + 1e-9
    try:
        target.check(source)
    except UnsupportedSize:
        assert across < scale
    else:
        assert abs(out.width - scale * source.width) <= 1


@given(sources, sizes, fits)
def test_a_size_is_exactly_what_comes_out_and_what_is_shown_lies_within(
    source: Size, size: Size, fit: Fit
) -> None:
    picture = source.times(2)
    layout = placed_in(picture, size, fit)
    assert Target(size=size, fit=fit).output(source) == layout.out == size
    for box, whole in ((layout.shown, picture), (layout.place, size)):
        assert (box.left % 2, box.top % 2) == (0, 0)
        assert box.left + box.size.width <= whole.width
        assert box.top + box.size.height <= whole.height
        assert min(box.size.width, box.size.height) >= 2
        # In the middle, but for what an even place costs.
        assert abs(2 * box.left + box.size.width - whole.width) <= 4
        assert abs(2 * box.top + box.size.height - whole.height) <= 4
    if fit is not Fit.COVER:
        assert layout.shown.size == picture
    if fit is not Fit.CONTAIN:
        assert layout.place.size == size
    if fit is not Fit.STRETCH:
        shown, place = layout.shown.size, layout.place.size
        across, down = place.width / shown.width, place.height / shown.height
        least = min(shown.width, shown.height, place.width, place.height)
        assert abs(across / down - 1) <= 6 / least
        # One of the sides is filled.
        full = layout.place if fit is Fit.CONTAIN else layout.shown
        whole = size if fit is Fit.CONTAIN else picture
        assert full.size.width == whole.width or full.size.height == whole.height


@given(sources, sizes, fits)
def test_of_the_publishers_aspect_there_are_no_bars_and_nothing_is_cut_off(
    source: Size, size: Size, fit: Fit
) -> None:
    scale = size.width / source.width
    assume(1 <= scale <= MOST_SCALE)
    out = Target(scale=scale).output(source)
    assume(min(out.width, out.height) >= LEAST_SIDE)
    layout = placed_in(source.times(2), out, fit)
    bars = out.pixels - layout.place.size.pixels
    cut = source.times(2).pixels - layout.shown.size.pixels
    # Two rows or columns at most, where rounding took the aspect away.
    assert bars <= 4 * max(out.width, out.height)
    assert cut <= 8 * max(source.width, source.height) * max(1, round(2 / scale))


def test_a_square_in_720p_has_bars_at_its_sides() -> None:
    layout = placed_in(Size(1024, 1024), Size(1280, 720), Fit.CONTAIN)
    assert (layout.place.left, layout.place.top) == (280, 0)
    assert layout.place.size == Size(720, 720)
    half = layout.halved()
    assert (half.out, half.place.left, half.place.size) == (Size(640, 360), 140, Size(360, 360))


def test_a_square_that_fills_720p_loses_what_is_above_and_below() -> None:
    layout = placed_in(Size(1024, 1024), Size(1280, 720), Fit.COVER)
    assert (layout.shown.left, layout.shown.top) == (0, 224)
    assert layout.shown.size == Size(1024, 576)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"scale": 2.0, "size": Size(1280, 720)},
        {"scale": 0.9},
        {"scale": 4.1},
        {"scale": float("nan")},
        {"size": Size(1281, 720)},
        {"size": Size(1280, 62)},
        {"size": Size(4096, 2306)},
        {"size": Size(8192, 8192)},
    ],
)
def test_what_is_no_target_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UnsupportedSize):
        Target(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "target", "word"),
    [
        (Size(1280, 1280), Target(scale=4), "highest level"),
        (Size(640, 360), Target(size=Size(320, 180)), "0.5 times"),
        (Size(256, 256), Target(size=Size(1920, 1080)), "4.22 times"),
        (Size(256, 256), Target(size=Size(1024, 256), fit=Fit.COVER), None),
        (Size(256, 256), Target(size=Size(1026, 200), fit=Fit.STRETCH), "0.781 times"),
        (Size(512, 512), Target(size=Size(1280, 720), fit=Fit.COVER), None),
        (Size(854, 480), Target(size=Size(1280, 720)), None),
        (Size(641, 361), Target(size=Size(640, 360)), None),
    ],
)
def test_what_a_source_should_not_become_is_told(
    source: Size, target: Target, word: str | None
) -> None:
    if word is None:
        target.check(source)
        return
    with pytest.raises(UnsupportedSize, match=word):
        target.check(source)


def test_a_size_stays_when_the_publisher_takes_another_one() -> None:
    target = Target(size=Size(1280, 720))
    assert {target.output(Size(640 // n, 360 // n)) for n in (1, 2, 4)} == {Size(1280, 720)}
