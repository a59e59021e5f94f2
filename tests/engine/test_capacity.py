"""Admission by pixels a second: who gets in, and what a stream that grows may have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlift.engine.capacity import SLOT_PPS, Capacity, need_pps
from streamlift.errors import NoCapacity
from streamlift.frames import Size, Slots

FULL = Size(512, 512)


def test_a_slot_is_a_stream_of_512x512_at_25_fps() -> None:
    capacity = Capacity(2 * SLOT_PPS)
    shares = [capacity.take(need_pps(FULL, None)) for _ in range(2)]
    assert capacity.slots == Slots(2, 2)
    with pytest.raises(NoCapacity, match="too little") as refused:
        capacity.take(need_pps(FULL, 25.0))
    assert (refused.value.found, refused.value.expected) == ("0.00 of 2 slots free", "1.00 slots")
    shares[0].release()
    assert capacity.slots == Slots(2, 1)
    capacity.take(need_pps(FULL, 25.0))


def test_small_streams_share_a_slot_and_what_is_used_is_rounded_up() -> None:
    capacity = Capacity(SLOT_PPS)
    small = need_pps(Size(128, 128), 25.0)
    for _ in range(16):
        capacity.take(small)
        assert capacity.slots == Slots(1, 1)
    with pytest.raises(NoCapacity):
        capacity.take(small)


def test_a_fast_or_large_stream_needs_more_than_one_slot() -> None:
    assert need_pps(FULL, 50.0) == 2 * SLOT_PPS
    assert need_pps(Size(1280, 1280), 25.0) == 6.25 * SLOT_PPS
    capacity = Capacity(4 * SLOT_PPS)
    capacity.take(need_pps(FULL, 25.0))
    with pytest.raises(NoCapacity):
        capacity.take(need_pps(Size(1280, 1280), 25.0))
    capacity.take(need_pps(FULL, 50.0))
    assert capacity.slots == Slots(4, 3)


def test_an_empty_backend_takes_any_stream_but_one_without_slots_none() -> None:
    capacity = Capacity(SLOT_PPS)
    capacity.take(need_pps(Size(1280, 1280), 25.0))
    assert capacity.slots == Slots(1, 1)
    with pytest.raises(NoCapacity):
        Capacity(0.0).take(1.0)


def test_a_rate_that_is_measured_a_little_high_costs_no_second_slot() -> None:
    capacity = Capacity(2 * SLOT_PPS)
    capacity.take(need_pps(FULL, 25.0)).ask(need_pps(FULL, 25.3))
    assert capacity.slots == Slots(2, 1)
    capacity.take(need_pps(FULL, 25.0))


def test_a_stream_that_grows_gets_what_is_free_and_the_surplus_is_left_out_evenly() -> None:
    capacity = Capacity(4 * SLOT_PPS)
    neighbour = capacity.take(SLOT_PPS)
    greedy = capacity.take(SLOT_PPS)
    greedy.ask(3 * SLOT_PPS)
    assert [greedy.admit() for _ in range(9)] == 9 * [True]
    greedy.ask(8 * SLOT_PPS)  # three of eight
    kept = [greedy.admit() for _ in range(80)]
    assert sum(kept) == 30
    assert {sum(kept[n : n + 8]) for n in range(72)} == {3}
    assert all(neighbour.admit() for _ in range(100))
    assert greedy.granted_pps == 3 * SLOT_PPS


def test_what_is_borrowed_goes_back_to_whom_it_belongs() -> None:
    """A stream that pauses for a while finds its place again, whatever a neighbour took."""
    capacity = Capacity(2 * SLOT_PPS)
    neighbour, greedy = capacity.take(SLOT_PPS), capacity.take(SLOT_PPS)
    neighbour.ask(0.1 * SLOT_PPS)
    greedy.ask(9 * SLOT_PPS)
    assert greedy.granted_pps == pytest.approx(1.9 * SLOT_PPS)
    neighbour.ask(SLOT_PPS)
    assert all(neighbour.admit() for _ in range(100))
    greedy.ask(9 * SLOT_PPS)
    assert capacity.used_pps == pytest.approx(2 * SLOT_PPS)


def test_a_lane_that_stands_in_for_a_failed_one_is_never_refused() -> None:
    capacity = Capacity(2 * SLOT_PPS)
    neighbour = capacity.take(1.5 * SLOT_PPS)
    stand_in = capacity.take(SLOT_PPS, stands_in=True)
    stand_in.ask(SLOT_PPS)
    assert sum(stand_in.admit() for _ in range(100)) == 50, "what is free"
    another = capacity.take(SLOT_PPS, stands_in=True)
    another.ask(SLOT_PPS)
    assert sum(another.admit() for _ in range(100)) == 25
    neighbour.ask(1.5 * SLOT_PPS)
    assert all(neighbour.admit() for _ in range(100))
    with pytest.raises(NoCapacity):
        Capacity(0.0).take(SLOT_PPS, stands_in=True)


def test_alone_a_stream_may_have_all_there_is() -> None:
    share = Capacity(SLOT_PPS).take(SLOT_PPS)
    share.ask(5 * SLOT_PPS)
    assert all(share.admit() for _ in range(100))


@given(
    needs=st.lists(st.floats(0.01, 10.0), min_size=2, max_size=6),
    total=st.floats(1.0, 10.0),
)
def test_nobody_who_stays_within_what_it_came_with_loses_a_frame(
    needs: list[float], total: float
) -> None:
    capacity = Capacity(total * SLOT_PPS)
    shares = [capacity.take(total / (2 * len(needs)) * SLOT_PPS) for _ in needs]
    for _ in range(3):
        for share, need in zip(shares[1:], needs[1:], strict=True):
            share.ask(need * SLOT_PPS)
        shares[0].ask(total / (2 * len(needs)) * SLOT_PPS)
        assert all(shares[0].admit() for _ in range(50))
        assert capacity.used_pps <= total * SLOT_PPS * 1.001


def test_a_guest_keeps_no_stream_from_growing() -> None:
    capacity = Capacity(2 * SLOT_PPS)
    stream = capacity.take(SLOT_PPS)
    guest = capacity.take(SLOT_PPS, guest=True)
    stream.ask(2 * SLOT_PPS)
    assert stream.granted_pps == 2 * SLOT_PPS
    guest.ask(2 * SLOT_PPS)
    assert guest.granted_pps == SLOT_PPS  # what it was let in with


def test_a_guest_is_let_in_only_where_there_is_room() -> None:
    capacity = Capacity(SLOT_PPS)
    capacity.take(SLOT_PPS)
    with pytest.raises(NoCapacity):
        capacity.take(SLOT_PPS, guest=True)
