"""Timestamps on one rising line."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlift.clock import VIDEO_CLOCK_HZ
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


def test_the_frames_of_a_burst_are_due_one_after_another() -> None:
    line, due_s = Timeline(), []
    for n in range(12):
        line.place(n * 3600, 1.0)
        due_s.append(line.due_s)
    assert due_s == pytest.approx([1.0 + n * 0.04 for n in range(12)])


def test_frames_that_come_evenly_are_due_when_they_come() -> None:
    line = Timeline()
    for n in range(100):
        line.place(n * 3600, n * 0.04)
        assert line.due_s == pytest.approx(n * 0.04)


@given(st.lists(st.floats(0.0, 0.3), min_size=1, max_size=60))
def test_a_frame_is_never_due_before_it_comes_nor_over_a_second_after(gaps_s: list[float]) -> None:
    line, now_s = Timeline(), 0.0
    for n, gap_s in enumerate(gaps_s):
        now_s += gap_s
        line.place(n * 3600, now_s)
        assert now_s - 1e-9 <= line.due_s <= now_s + 1.0


@pytest.mark.parametrize(("told", "real", "burst"), [(10, 25, 1), (20, 25, 1), (10, 25, 12)])
def test_timestamps_that_run_faster_than_pictures_come_are_shrunk(
    told: int, real: int, burst: int
) -> None:
    """Ten frames a second are written, and twenty-five come."""
    line, ahead_s = Timeline(), []
    for n in range(real * 60):
        arrived_s = (n // burst + 1) * burst / real
        placed = line.place(n * VIDEO_CLOCK_HZ // told, arrived_s)
        ahead_s.append(placed / VIDEO_CLOCK_HZ - arrived_s)
    early, late = ahead_s[real * 8 : real * 12], ahead_s[-real * 4 :]
    assert abs(max(late) - max(early)) < 2.5
    assert max(ahead_s) < 3.5 * (real / told)


@given(st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.3, 1.0, 2.0]), min_size=400, max_size=400))
def test_stalls_that_are_caught_up_with_change_no_spacing(stalls_s: list[float]) -> None:
    """Each stall holds all frames back for its time; they then come at once."""
    line, held_until_s, placed = Timeline(), 0.0, []
    for n, stall_s in enumerate(stalls_s):
        made_s = n * 0.04
        if n % 75 == 0:
            held_until_s = max(held_until_s, made_s + stall_s)
        placed.append(line.place(n * 3600, max(made_s, held_until_s)))
    assert {b - a for a, b in itertools.pairwise(placed)} == {3600}


def test_what_lay_shortly_before_is_found_on_the_stream_s_line() -> None:
    line = Timeline()
    line.place(777_000, 0.0)
    line.place(780_600, 0.04)
    assert [line.placed(pts) for pts in (777_000, 780_600)] == [0, 3600]
