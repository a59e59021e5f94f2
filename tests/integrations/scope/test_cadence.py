"""The arithmetic of bursts, without any frame."""

from __future__ import annotations

import pytest

from streamlift.integrations.scope.cadence import Backlog, Playout


def test_before_anything_is_measured_the_generators_usual_rate_is_reported() -> None:
    playout = Playout()
    playout.arrived(0.0)
    assert playout.deliver(4, 0.0) == pytest.approx(16.0, rel=0.03)


def test_a_player_that_holds_too_much_plays_faster() -> None:
    playout = Playout()
    rates = []
    for i in range(1, 600):
        playout.arrived(i / 25)
        if i % 4 == 0:
            rates.append(playout.deliver(20 if i == 40 else 4, i / 25))
    # What piled up is played off, then it is even.
    assert max(rates) > 26.5
    assert rates[-1] == pytest.approx(25.0, rel=0.05)


def test_before_a_model_with_delay_takes_over_the_player_is_slowed_until_it_holds_enough() -> None:
    playout, slowest, bridged_s = Playout(), 99.0, None
    for i in range(1, 400):
        now_s = i / 16
        playout.arrived(now_s)
        if i % 4 == 0:
            slowest = min(slowest, playout.deliver(4, now_s, owed=11 if now_s > 5 else None))
            if playout.can_bridge(11, now_s):
                bridged_s = now_s
                break
    assert slowest > 16 / 1.5
    assert bridged_s is not None
    assert bridged_s < 11.0


@pytest.mark.parametrize("burst", [12, 32, 97, 400])
def test_bursts_with_pauses_are_no_backlog(burst: int) -> None:
    backlog, now_s = Backlog(), 0.0
    for _ in range(10):
        for number in range(burst):
            backlog.called(1, now_s)
            assert not backlog.must_skip(4, now_s)
            now_s += 0.04 if number % 4 == 3 else 0.0
            backlog.returned(now_s)
        now_s += 0.3
    assert backlog.largest_burst == burst


def skipped_steps(backlog: Backlog, now_s: float, steps: int) -> list[bool]:
    """Calls without any pause; each step of 8 takes 100 ms."""
    skipped = []
    for call in range(1, 8 * steps + 1):
        backlog.called(1, now_s)
        if call % 8 == 0:
            skipped.append(backlog.must_skip(8, now_s))
            now_s += 0.1
        backlog.returned(now_s)
    return skipped


def test_without_any_pause_every_other_step_is_skipped_in_the_end() -> None:
    skipped = skipped_steps(Backlog(), 0.0, 200)
    first = skipped.index(True)
    assert first == pytest.approx(60, abs=2)  # six seconds
    assert skipped[first : first + 40] == [True, False] * 20


def test_a_source_whose_bursts_are_known_is_found_too_fast_much_sooner() -> None:
    backlog, now_s = Backlog(), 0.0
    for _ in range(20):
        backlog.called(12, now_s)
        backlog.returned(now_s + 0.05)
        now_s += 0.75
    skipped = skipped_steps(backlog, now_s, 40)
    assert skipped.index(True) == pytest.approx(11, abs=2)
