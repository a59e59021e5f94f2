"""When lost packets are asked for again."""

from __future__ import annotations

import pytest

from streamlift.media.incoming.nack import MOST_ASKED, NackSchedule


def test_a_new_hole_is_asked_for_at_once() -> None:
    assert NackSchedule().due([7, 8], 0.0) == [7, 8]


def test_while_nothing_is_known_the_waits_double() -> None:
    schedule = NackSchedule()
    asked = [turn for turn in range(600) if schedule.due([7], turn / 1000)]
    assert asked == pytest.approx([0, 18, 56, 134, 292], abs=2)


def test_a_new_hole_does_not_wait_for_an_old_one() -> None:
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


def test_a_packet_asked_for_often_teaches_the_time_since_the_first_request() -> None:
    # Else a sender far away would never be known as one: every packet is asked for twice before
    # the first answer can be here.
    schedule = NackSchedule()
    for at_s in (0.0, 0.02, 0.06, 0.14):
        schedule.due([1], at_s)
    schedule.arrived(1, 0.24)
    assert schedule.round_trip_s == pytest.approx(0.24)
    schedule.due([2], 1.0)
    assert schedule.due([2], 1.2) == []
    assert schedule.due([2], 1.24) == [2]


def test_what_comes_seconds_later_teaches_nothing() -> None:
    schedule = NackSchedule()
    schedule.due([1], 0.0)
    schedule.arrived(1, 5.0)
    assert schedule.round_trip_s == 0.0


def test_the_round_trip_may_be_told() -> None:
    schedule = NackSchedule()
    schedule.note_round_trip(0.3)
    schedule.due([1], 0.0)
    assert schedule.due([1], 0.25) == []
    assert schedule.due([1], 0.3) == [1]


def test_numbers_of_another_rtp_stream_are_other_packets() -> None:
    schedule = NackSchedule()
    schedule.due([1], 0.0)
    schedule.forget()
    schedule.arrived(1, 0.1)
    assert schedule.round_trip_s == 0.0


def test_one_report_has_a_bound() -> None:
    assert len(NackSchedule().due(list(range(500)), 0.0)) == MOST_ASKED
