"""Timestamps on one rising line."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from streamlift.timeline import Timeline


def test_spacing_is_kept_as_the_publisher_sent_it() -> None:
    line = Timeline()
    placed = [line.place(pts, n * 0.04) for n, pts in enumerate((900_000, 903_600, 907_300))]
    assert placed == [0, 3600, 7300]


def test_a_new_publisher_goes_on_after_the_time_that_passed() -> None:
    line = Timeline()
    line.place(5_000_000, 10.0)
    line.restart()
    assert line.place(17, 12.0) == 180_000
    assert line.place(17 + 3600, 12.04) == 183_600


def test_a_burst_keeps_its_pts_although_it_arrives_at_once() -> None:
    line = Timeline()
    assert [line.place(n * 3600, 1.0) for n in range(12)] == [n * 3600 for n in range(12)]


def test_a_jump_that_no_time_explains_is_taken_out() -> None:
    line = Timeline()
    line.place(0, 0.0)
    assert line.place(90_000 * 3600, 0.04) == 3600


def test_a_pause_of_the_publisher_is_kept() -> None:
    line = Timeline()
    line.place(0, 0.0)
    assert line.place(90_000 * 30, 30.0) == 90_000 * 30


def test_a_made_picture_lies_at_its_time_and_frames_go_on_after_it() -> None:
    line = Timeline()
    line.place(777, 1.0)
    assert line.place_made(3.0) == 180_000
    assert line.place(778, 4.0) == 270_000


@given(
    st.lists(
        st.tuples(st.integers(0, 2**33), st.floats(-1, 3), st.booleans()), min_size=2, max_size=50
    )
)
def test_placed_pts_only_rise(frames: list[tuple[int, float, bool]]) -> None:
    line = Timeline()
    arrived_s, placed = 100.0, []
    for pts, passed_s, restarted in frames:
        arrived_s += passed_s
        if restarted:
            line.restart()
        placed.append(line.place(pts, arrived_s))
    assert all(a < b for a, b in itertools.pairwise(placed))
