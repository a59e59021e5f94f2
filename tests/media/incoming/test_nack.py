"""When lost packets are asked for again."""

from __future__ import annotations

import pytest

from streamlift.media.incoming.nack import MOST_ASKED, NackSchedule


def test_a_new_hole_is_asked_for_at_once() -> None:
    assert NackSchedule().due([7, 8], 0.0) == [7, 8]


def test_it_is_not_asked_for_again_before_a_round_trip() -> None:
    schedule = NackSchedule()
    schedule.due([7], 0.0)
    assert schedule.due([7, 9], 0.01) == [9]
    assert schedule.due([7, 9], 0.021) == [7]


def test_the_round_trip_is_learned_from_the_packets_that_come() -> None:
    schedule = NackSchedule()
    for number in range(40):
        schedule.due([number], number * 1.0)
        schedule.arrived(number, number * 1.0 + 0.08)
    assert schedule.round_trip_s == pytest.approx(0.08, abs=0.005)
    schedule.due([100], 50.0)
    assert schedule.due([100], 50.05) == []
    assert schedule.due([100], 50.081) == [100]


def test_a_packet_asked_for_twice_teaches_nothing() -> None:
    schedule = NackSchedule()
    schedule.due([1], 0.0)
    schedule.due([1], 0.5)
    schedule.arrived(1, 5.0)
    assert schedule.round_trip_s == 0.02


def test_one_report_has_a_bound() -> None:
    assert len(NackSchedule().due(list(range(500)), 0.0)) == MOST_ASKED
