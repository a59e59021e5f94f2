"""Slow viewers: told apart from unlucky ones, and kept from swinging to and fro."""

from __future__ import annotations

import pytest

from streamlift.media.outgoing.link import HOLD_S, SLOW_AFTER_S, KeyframeAllowance, LinkWatch
from streamlift.media.rtc.sender import ReceiverReport

SENT = 6_000_000.0


def loss(share: float) -> ReceiverReport:
    return ReceiverReport(fraction_lost=share)


def estimate(bps: int) -> ReceiverReport:
    return ReceiverReport(estimate_bps=bps)


def observe(
    watch: LinkWatch, report: ReceiverReport, seconds: float, start_s: float, sent: float = SENT
) -> list[float]:
    """A report each second; returns when `slow` changed."""
    turns = [start_s + n for n in range(int(seconds) + 1)]
    return [now_s for now_s in turns if watch.observe(report, sent, now_s)]


@pytest.mark.parametrize("report", [loss(0.2), estimate(2_000_000)])
def test_a_link_that_stays_bad_is_slow(report: ReceiverReport) -> None:
    watch = LinkWatch()
    assert observe(watch, report, 10, 0) == [SLOW_AFTER_S]
    assert watch.slow


@pytest.mark.parametrize("report", [loss(0.05), estimate(5_500_000), ReceiverReport()])
def test_a_little_loss_and_a_fair_estimate_are_not(report: ReceiverReport) -> None:
    watch = LinkWatch()
    assert observe(watch, report, 60, 0) == []


def test_a_bad_second_or_two_are_not() -> None:
    watch = LinkWatch()
    for start_s in range(0, 40, 4):
        assert observe(watch, loss(0.5), 2, start_s) == []
        assert observe(watch, loss(0.0), 0, start_s + 3) == []


def test_an_estimate_says_nothing_while_the_rate_is_not_known() -> None:
    watch = LinkWatch()
    assert not any(watch.observe(estimate(100_000), None, now_s) for now_s in range(20))


def test_it_recovers_after_a_good_while() -> None:
    watch = LinkWatch()
    observe(watch, loss(0.3), 10, 0)
    assert observe(watch, loss(0.0), 30, 11) == [11 + HOLD_S]
    assert not watch.slow


def test_the_while_doubles_when_it_turns_bad_again_soon() -> None:
    watch = LinkWatch()
    observe(watch, loss(0.3), 5, 0)
    observe(watch, loss(0.0), 10, 6)
    observe(watch, loss(0.3), 5, 17)
    assert watch.slow
    assert observe(watch, loss(0.0), 60, 23) == [23 + 2 * HOLD_S]


def test_what_is_lost_at_the_lower_rate_keeps_it_there() -> None:
    watch = LinkWatch()
    observe(watch, loss(0.3), 5, 0)
    assert observe(watch, loss(0.2), 100, 6, sent=2_000_000) == []


def test_a_slow_viewer_asks_for_a_keyframe_at_most_each_three_seconds() -> None:
    allowance = KeyframeAllowance()
    asked = [t / 10 for t in range(100)]
    assert sum(allowance.allows(now_s, slow=True) for now_s in asked) == 4


def test_others_are_passed_on_always() -> None:
    allowance = KeyframeAllowance()
    assert all(allowance.allows(t / 10, slow=False) for t in range(50))
