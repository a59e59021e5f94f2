"""The assembler of pictures: every order of packets, every pattern of loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.media.rtp import packets_of, rtp_packet

from streamlift.media.incoming.assembler import (
    GIVE_UP_S,
    LONGEST_WAIT_S,
    MOST_BYTES,
    AssembledPicture,
    PictureAssembler,
)
from streamlift.media.rtc.packet import MediaPacket


def whole(number: int, count: int) -> bytes:
    return b"".join(bytes((number % 256, part)) for part in range(count))


def feed(
    assembler: PictureAssembler,
    packets: Iterable[MediaPacket],
    *,
    start_s: float = 0.0,
    step_s: float,
) -> list[AssembledPicture]:
    pictures: list[AssembledPicture] = []
    for turn, packet in enumerate(packets):
        pictures += assembler.add(packet, start_s + turn * step_s).pictures
    return pictures


def lose(packets: list[MediaPacket], lost: Iterable[int]) -> list[MediaPacket]:
    gone = set(lost)
    return [packet for index, packet in enumerate(packets) if index not in gone]


def test_a_picture_comes_out_with_its_last_packet() -> None:
    assembler = PictureAssembler()
    *most, last = packets_of([3])
    assert feed(assembler, most, step_s=0) == []
    (picture,) = assembler.add(last, 0).pictures
    assert picture.data == whole(0, 3)
    assert not picture.after_loss


def test_a_picture_without_marker_ends_where_the_timestamp_changes() -> None:
    assembler = PictureAssembler()
    pictures = feed(assembler, packets_of([2, 3, 1], marker=False), step_s=0)
    assert [p.data for p in pictures] == [whole(0, 2), whole(1, 3)]


def test_packets_in_the_wrong_order_make_the_same_pictures() -> None:
    packets = packets_of([2, 3, 2])
    swapped = [packets[i] for i in (0, 2, 1, 4, 3, 6, 5)]
    pictures = feed(PictureAssembler(), swapped, step_s=0.001)
    assert [p.data for p in pictures] == [whole(0, 2), whole(1, 3), whole(2, 2)]


def test_duplicates_change_nothing() -> None:
    packets = packets_of([2, 2])
    pictures = feed(PictureAssembler(), [p for p in packets for _ in range(3)], step_s=0)
    assert [p.data for p in pictures] == [whole(0, 2), whole(1, 2)]


def test_sequence_numbers_and_timestamps_wrap_around() -> None:
    packets = packets_of([2, 2, 2], sequence=0xFFFD, timestamp=0xFFFFFFFF - 3000)
    pictures = feed(PictureAssembler(), packets, step_s=0)
    assert [p.data for p in pictures] == [whole(0, 2), whole(1, 2), whole(2, 2)]
    assert [p.pts for p in pictures] == [0, 3600, 7200]


def test_the_first_picture_has_pts_0_and_steps_are_the_senders() -> None:
    packets = [*packets_of([1], timestamp=500), *packets_of([1], timestamp=2000, sequence=1)]
    pictures = feed(PictureAssembler(), packets, step_s=0)
    assert [p.pts for p in pictures] == [0, 1500]


def test_missing_names_the_holes_oldest_first() -> None:
    assembler = PictureAssembler()
    feed(assembler, lose(packets_of([2, 6], sequence=0xFFFE), [3, 5, 6]), step_s=0)
    assert assembler.missing() == [1, 3, 4]
    assert assembler.holes == 3


def test_a_hole_that_is_filled_in_time_costs_no_picture() -> None:
    packets = packets_of([2, 2, 2])
    late = [*lose(packets, [2]), packets[2]]
    pictures = feed(PictureAssembler(), late, step_s=0.03)
    assert [p.data for p in pictures] == [whole(0, 2), whole(1, 2), whole(2, 2)]
    assert not any(p.after_loss for p in pictures)


@pytest.mark.parametrize("lost", [[2], [3], [4], [2, 3], [2, 4], [3, 4], [2, 3, 4]])
def test_what_is_lost_for_good_costs_only_the_pictures_it_tears(lost: list[int]) -> None:
    packets = packets_of([2, 3, 2, 2, 2, 2])  # packets 2, 3 and 4 are picture 1
    pictures = feed(PictureAssembler(), lose(packets, lost), step_s=0.04)
    assert pictures[0].data == whole(0, 2)
    # Behind a lost end nobody knows where the next picture begins: that one may go, too.
    assert [p.data for p in pictures[1:]][-3:] == [whole(n, 2) for n in (3, 4, 5)]
    assert pictures[1].after_loss
    assert not any(p.after_loss for p in pictures[2:])


def test_giving_up_is_told_once_a_hole() -> None:
    assembler = PictureAssembler()
    told = [
        assembler.add(packet, turn * 0.04).gave_up
        for turn, packet in enumerate(lose(packets_of([1] * 20), [3]))
    ]
    assert sum(told) == 1
    assert told.index(True) * 0.04 > GIVE_UP_S


def test_a_second_hole_gets_its_own_time() -> None:
    packets = packets_of([1] * 12)
    assembler = PictureAssembler()
    for index, at_s in ((0, 0.0), (2, 0.01), (3, 0.02), (5, 0.14)):
        assembler.add(packets[index], at_s)
    assert assembler.add(packets[6], 0.17).gave_up
    assert assembler.missing() == [4]
    filled = assembler.add(packets[4], 0.2)
    assert not filled.gave_up
    assert [p.data[0] for p in filled.pictures] == [4, 5, 6]


def test_the_rest_of_a_torn_picture_is_no_picture() -> None:
    packets = packets_of([1, 6, 1, 1])
    assembler = PictureAssembler()
    pictures = feed(assembler, lose(packets[:5], [2]), step_s=0.1)  # given up inside picture 1
    pictures += feed(assembler, packets[5:], start_s=0.5, step_s=0.01)
    assert [p.data for p in pictures] == [whole(0, 1), whole(2, 1), whole(3, 1)]


def test_padding_makes_no_picture_and_hides_no_loss() -> None:
    assembler = PictureAssembler()
    first, _, third = packets_of([1, 1, 1])
    third = dataclasses.replace(third, sequence_number=5)
    padding = [rtp_packet(n, first.timestamp, 0, b"") for n in (2, 3, 4)]
    pictures = feed(assembler, [first, *padding, third], step_s=0.1)
    assert [p.data for p in pictures] == [whole(0, 1), whole(2, 1)]
    assert pictures[1].after_loss


def test_a_sender_that_starts_anew_is_followed() -> None:
    assembler = PictureAssembler()
    feed(assembler, packets_of([1, 1], sequence=30_000), step_s=0)
    restarted = feed(assembler, packets_of([2, 2], sequence=5, timestamp=9), step_s=0)
    assert [p.data for p in restarted] == [whole(0, 2), whole(1, 2)]
    assert restarted[0].after_loss


def test_late_packets_of_what_was_given_up_are_ignored() -> None:
    packets = packets_of([1] * 8)
    assembler = PictureAssembler()
    feed(assembler, lose(packets, [2]), step_s=0.05)
    assert assembler.add(packets[2], 1.0).pictures == ()


@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
    data=st.data(),
)
def test_any_order_within_the_window_gives_all_pictures_in_order(
    counts: list[int], sequence: int, timestamp: int, data: st.DataObject
) -> None:
    first, *rest = packets_of(counts, sequence=sequence, timestamp=timestamp)
    shuffled = data.draw(st.permutations(rest))
    pictures = feed(PictureAssembler(), [first, *shuffled], step_s=0.0001)
    assert [p.data for p in pictures] == [whole(n, count) for n, count in enumerate(counts)]
    assert [p.pts for p in pictures] == [3600 * n for n in range(len(counts))]


@given(
    counts=st.lists(st.integers(1, 5), min_size=2, max_size=30),
    sequence=st.integers(0, 0xFFFF),
    data=st.data(),
)
def test_whatever_is_lost_pictures_are_whole_rising_and_marked(
    counts: list[int], sequence: int, data: st.DataObject
) -> None:
    packets = packets_of(counts, sequence=sequence)
    lost = data.draw(st.sets(st.integers(1, len(packets) - 1)))
    pictures = feed(PictureAssembler(), lose(packets, lost), step_s=0.03)
    whole_ones = {whole(n, count): n for n, count in enumerate(counts)}
    numbers = []
    for picture in pictures:
        assert picture.data in whole_ones
        numbers.append(whole_ones[picture.data])
    assert numbers == sorted(set(numbers))
    for before, picture, number in zip(numbers, pictures[1:], numbers[1:], strict=False):
        assert picture.after_loss == (number != before + 1)


# ---- senders far away, large pictures, other streams, markers that mean nothing ----


def other(packets: list[MediaPacket], ssrc: int) -> list[MediaPacket]:
    return [dataclasses.replace(packet, ssrc=ssrc) for packet in packets]


@pytest.mark.parametrize("round_trip_s", [0.0, 0.05, 0.24, 0.4])
def test_a_lost_packet_is_waited_for_as_long_as_two_requests_take(round_trip_s: float) -> None:
    packets = packets_of([1] * 60)
    assembler = PictureAssembler()
    assembler.wait_for(round_trip_s)
    pictures: list[AssembledPicture] = []
    for turn, packet in enumerate(lose(packets, [3])):
        at_s = turn * 0.02
        if at_s == pytest.approx(0.06 + 2 * round_trip_s, abs=0.011):
            pictures += assembler.add(packets[3], at_s).pictures
        pictures += assembler.add(packet, at_s).pictures
    assert len(pictures) == 60
    assert not any(p.after_loss for p in pictures)


def test_no_round_trip_makes_it_wait_for_ever() -> None:
    assembler = PictureAssembler()
    assembler.wait_for(60.0)
    told = [
        assembler.add(packet, turn * 0.1).gave_up
        for turn, packet in enumerate(lose(packets_of([1] * 20), [3]))
    ]
    assert told.index(True) * 0.1 == pytest.approx(3 * 0.1 + LONGEST_WAIT_S, abs=0.15)


def test_a_picture_of_thousands_of_packets_comes_out_whole() -> None:
    packets = packets_of([2000, 3000, 1])
    body = [dataclasses.replace(p, data=bytes(1)) for p in packets]
    late = [*body[:500], *body[501:1800], body[500], *body[1800:]]
    pictures = feed(PictureAssembler(), late, step_s=0.0001)
    assert [len(p.data) for p in pictures] == [2000, 3000, 1]


def test_what_is_kept_has_a_bound_in_bytes() -> None:
    assembler = PictureAssembler()
    endless = [
        dataclasses.replace(packet, data=bytes(1200), marker=0)
        for packet in packets_of([MOST_BYTES // 1200 + 10])
    ]
    assert sum([assembler.add(packet, 0.0).gave_up for packet in endless]) == 1
    after = packets_of([2, 2], sequence=len(endless), timestamp=9000)
    pictures = feed(assembler, after, step_s=0)
    assert [p.data for p in pictures] == [whole(0, 2), whole(1, 2)]
    assert pictures[0].after_loss


def test_another_rtp_stream_is_followed_from_its_first_packet() -> None:
    assembler = PictureAssembler()
    before = feed(assembler, packets_of([2, 2], sequence=5000), step_s=0.01)
    anew = other(packets_of([2, 2], sequence=4600, timestamp=77), 2)
    after = feed(assembler, anew, start_s=1.0, step_s=0.0)
    assert [p.data for p in after] == [whole(0, 2), whole(1, 2)]
    assert after[0].after_loss
    # pts goes on by the time that has passed, then as the sender says.
    assert after[0].pts - before[-1].pts == pytest.approx(90_000, rel=0.05)
    assert after[1].pts - after[0].pts == 3600


def test_the_former_stream_is_followed_again_only_when_the_one_of_now_is_silent() -> None:
    assembler = PictureAssembler()
    old, new = packets_of([1] * 10), other(packets_of([1] * 10, sequence=900), 2)
    feed(assembler, old[:2], step_s=0.0)
    both = [p for pair in zip(new[:4], old[2:6], strict=True) for p in pair]
    pictures = feed(assembler, both, step_s=0.01)
    assert [p.data for p in pictures] == [whole(n, 1) for n in range(4)]
    assert [p.data for p in feed(assembler, old[6:8], start_s=2.0, step_s=0.0)] == [
        whole(6, 1),
        whole(7, 1),
    ]


def test_a_sender_that_begins_anew_a_little_behind_is_followed() -> None:
    assembler = PictureAssembler()
    feed(assembler, packets_of([1] * 5, sequence=5000), step_s=0.01)
    anew = packets_of([1] * 5, sequence=4600, timestamp=900_000)
    assert [p.data for p in feed(assembler, anew, start_s=1.0, step_s=0.01)] == [
        whole(n, 1) for n in range(1, 5)
    ]


def test_old_packets_in_order_are_not_taken_for_a_new_beginning() -> None:
    packets = packets_of([1] * 30)
    assembler = PictureAssembler()
    feed(assembler, packets, step_s=0.01)
    assert feed(assembler, packets[3:20], start_s=0.3, step_s=0.001) == []
    assert not assembler.holes


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_markers_on_every_packet_are_found_out_and_then_timestamps_decide(parts: int) -> None:
    packets = [dataclasses.replace(p, marker=1) for p in packets_of([parts] * 6)]
    pictures = feed(PictureAssembler(), packets, step_s=0.01)
    # Of the first picture a part got out before that was known; the last one is not over yet.
    assert [p.data for p in pictures[1:]] == [whole(n, parts) for n in range(1, 5)]
    assert pictures[1].after_loss
    assert not any(p.after_loss for p in pictures[2:])


def test_parameter_sets_with_a_marker_and_the_time_of_their_picture_are_no_lie() -> None:
    first, second, *rest = packets_of([1, 1, 1, 1])
    sets = dataclasses.replace(first, data=b"sets")
    picture = dataclasses.replace(second, timestamp=first.timestamp)
    assembler = PictureAssembler(lambda _, data: data != b"sets")
    pictures = feed(assembler, [sets, picture, *rest], step_s=0.01)
    assert [p.data for p in pictures] == [b"sets", *(whole(n, 1) for n in (1, 2, 3))]
    assert not any(p.after_loss for p in pictures)


@given(
    counts=st.lists(st.integers(1, 4), min_size=3, max_size=12),
    round_trip_s=st.floats(0, 2),
    data=st.data(),
)
def test_whatever_comes_the_bytes_kept_are_counted_right(
    counts: list[int], round_trip_s: float, data: st.DataObject
) -> None:
    packets = packets_of(counts, sequence=data.draw(st.integers(0, 0xFFFF)))
    drawn = data.draw(st.lists(st.sampled_from(packets), max_size=60))
    changed = [dataclasses.replace(p, ssrc=data.draw(st.integers(1, 2))) for p in drawn]
    assembler = PictureAssembler()
    assembler.wait_for(round_trip_s)
    for turn, packet in enumerate(changed):
        assembler.add(packet, turn * data.draw(st.floats(0, 0.3)))
        kept = [*assembler._run, *(p for p, _ in assembler._ahead.values())]
        assert assembler._bytes == sum(len(p.data) for p in kept)
        assert assembler.holes == len(assembler.missing())
