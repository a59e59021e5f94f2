"""Which worker gets the next lane."""

from __future__ import annotations

from streamlift.cluster.choice import LAST_S, OUT_S, Candidate, Strikes, in_order


def order(*candidates: Candidate, now_s: float = 0.0, failed_host: str | None = None) -> list[str]:
    return [c.name for c in in_order(candidates, now_s, failed_host)]


def struck(*times_s: float) -> Strikes:
    strikes = Strikes()
    for time_s in times_s:
        strikes.strike(time_s)
    return strikes


def test_the_most_free_slots_come_first_and_names_decide_between_equals() -> None:
    a, b, c = (Candidate(n, n, free, Strikes()) for n, free in (("a", 1), ("b", 3), ("c", 1)))
    assert order(c, b, a) == ["b", "a", "c"]


def test_a_worker_that_failed_a_lane_is_last_for_ten_seconds() -> None:
    a, b = Candidate("a", "a", 9, struck(0.0)), Candidate("b", "b", 1, Strikes())
    assert order(a, b, now_s=LAST_S - 0.1) == ["b", "a"]
    assert order(a, b, now_s=LAST_S + 0.1) == ["a", "b"]


def test_three_failures_in_a_minute_put_it_out_for_another_minute() -> None:
    a, b = Candidate("a", "a", 9, struck(0.0, 5.0, 50.0)), Candidate("b", "b", 1, Strikes())
    assert order(a, b, now_s=50.0 + OUT_S - 1) == ["b"]
    assert order(a, b, now_s=50.0 + OUT_S + 1) == ["a", "b"]
    far_apart = Candidate("a", "a", 9, struck(0.0, 35.0, 70.0))
    assert order(far_apart, b, now_s=70.1) == ["b", "a"]


def test_the_only_one_is_asked_whatever_it_did() -> None:
    assert order(Candidate("a", "a", 9, struck(0.0, 1.0, 2.0)), now_s=3.0) == ["a"]


def test_lanes_that_fail_together_are_one_failure() -> None:
    strikes = struck(1.0, 1.0, 1.1, 1.2)
    assert strikes.recent(1.3) == 1
    assert not strikes.out(1.3)


def test_another_machine_than_the_one_that_failed_is_tried_first() -> None:
    a, b = Candidate("a", "10.0.0.1", 2, Strikes()), Candidate("b", "10.0.0.2", 2, Strikes())
    assert order(a, b, failed_host="10.0.0.1") == ["b", "a"]


def test_a_full_one_is_still_asked_for_only_it_knows() -> None:
    assert order(Candidate("a", "a", 0, Strikes())) == ["a"]
