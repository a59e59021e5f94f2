"""Clocks that begin late, jump or step back: the arithmetic alone."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from streamlift.offline.clocks import ClockMender

STEP = Fraction(1, 25)


def mended(clock: ClockMender, times: list[Fraction], track: int = 0) -> list[Fraction]:
    return [t + clock.offset_s(track, t, STEP) for t in times]


def run(first: Fraction, count: int) -> list[Fraction]:
    return [first + n * STEP for n in range(count)]


def test_an_ordinary_clock_is_left_alone() -> None:
    clock = ClockMender()
    assert mended(clock, run(Fraction(0), 50)) == run(Fraction(0), 50)
    assert clock.mended == 0


def test_a_small_start_is_kept_and_a_late_one_becomes_zero() -> None:
    assert mended(ClockMender(Fraction(1, 2)), run(Fraction(1, 2), 2))[0] == Fraction(1, 2)
    assert mended(ClockMender(Fraction(7200)), run(Fraction(7200), 2))[0] == 0
    assert mended(ClockMender(Fraction(7, 5), jumps=True), run(Fraction(7, 5), 2))[0] == 0
    assert mended(ClockMender(Fraction(-1, 2)), run(Fraction(-1, 2), 2))[0] == 0
    primed = Fraction(-21, 1000)
    assert mended(ClockMender(primed), run(primed, 2))[0] == primed


def test_a_step_back_goes_on_where_it_was() -> None:
    clock = ClockMender()
    found = mended(clock, run(Fraction(0), 10) + run(Fraction(0), 10))
    assert found == run(Fraction(0), 20)
    assert clock.mended == 1


def test_a_jump_ahead_is_a_gap_unless_the_form_allows_jumps() -> None:
    times = [*run(Fraction(0), 5), *run(Fraction(3600), 5)]
    assert mended(ClockMender(), times) == times
    assert mended(ClockMender(jumps=True), times) == run(Fraction(0), 10)


def test_reordered_pictures_are_no_step_back() -> None:
    times = [Fraction(n, 100) for n in (0, 16, 8, 12, 32, 24)]
    clock = ClockMender()
    assert mended(clock, times) == times
    assert clock.mended == 0


@given(
    st.lists(st.integers(-20_000, 20_000), min_size=1, max_size=5),
    st.integers(0, 20),
    st.booleans(),
)
def test_picture_and_sound_move_together(jumps: list[int], lead: int, form_jumps: bool) -> None:
    """Both tracks restart at each new time; sound runs up to 0.8 s ahead of the picture."""
    clock = ClockMender(jumps=form_jumps)
    written: list[tuple[int, Fraction, Fraction]] = []  # track, written, true time
    true = Fraction(0)
    for number, jump in enumerate([0, *jumps]):
        base = Fraction(jump) if number else Fraction(0)
        video = [(0, base + n * STEP, true + n * STEP) for n in range(40)]
        sound = [(1, base + n * STEP, true + n * STEP) for n in range(40)]
        for n in range(40 + lead):
            written += sound[n : n + 1]
            if n >= lead:
                written += video[n - lead : n - lead + 1]
        true += 40 * STEP
    ends: dict[int, Fraction] = {}
    apart: dict[Fraction, dict[int, Fraction]] = {}
    for track, time, meant in written:
        out = time + clock.offset_s(track, time, STEP)
        assert out >= ends.get(track, out) - 1  # never far back
        ends[track] = out
        apart.setdefault(meant, {})[track] = out
    assert all(abs(pair[0] - pair[1]) <= Fraction(1, 10) for pair in apart.values())
