"""Transport-wide feedback: bytes as in the draft, read back by another parser."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from streamlift.media.rtc.transport_cc import TransportFeedback


@dataclass
class Parsed:
    """One report; `arrivals_us` by sequence number, None where not received."""

    base: int
    count: int
    feedback_count: int
    sender_ssrc: int
    media_ssrc: int
    arrivals_us: list[int | None]


def parse(packet: bytes) -> Parsed:
    """Reads draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1, all chunk types."""
    first, kind, words = struct.unpack_from("!BBH", packet)
    assert (first, kind) == (0x8F, 205)  # version 2, no padding bit, FMT 15
    assert len(packet) == 4 * (words + 1)
    sender, media, base, count, times = struct.unpack_from("!LLHHL", packet, 4)
    at = 20
    symbols: list[int] = []
    while len(symbols) < count:
        (chunk,) = struct.unpack_from("!H", packet, at)
        at += 2
        if chunk >> 15 == 0:
            symbols += [chunk >> 13 & 3] * (chunk & 0x1FFF)
        elif chunk >> 14 & 1:
            symbols += [chunk >> 2 * i & 3 for i in range(6, -1, -1)]
        else:
            symbols += [chunk >> i & 1 for i in range(13, -1, -1)]
    time_us = (times >> 8) * 64_000
    arrivals: list[int | None] = []
    for symbol in symbols[:count]:
        if symbol == 0:
            arrivals.append(None)
            continue
        delta, size = (
            (packet[at], 1) if symbol == 1 else (struct.unpack_from("!h", packet, at)[0], 2)
        )
        at += size
        time_us += delta * 250
        arrivals.append(time_us)
    assert len(packet) - at < 4, "more than padding is left"
    assert not any(packet[at:])
    return Parsed(base, count, times & 0xFF, sender, media, arrivals)


def test_the_bytes_are_those_of_the_draft() -> None:
    feedback = TransportFeedback(0x11223344)
    for sequence, now_s in ((10, 0.128), (11, 0.129), (13, 0.300), (14, 0.2995)):
        feedback.add(sequence, now_s)
    report = feedback.report(0x55667788)
    assert report is not None
    assert report.hex() == (
        "8fcd0006"  # version 2, FMT 15, PT 205, 7 words
        "11223344"
        "55667788"
        "000a0005"  # base 10, 5 packets
        "00000200"  # reference 2 x 64 ms, report 0
        "d4a0"  # 11, then 01 01 00 10 10 00 00: small, small, lost, large, large, none, none
        "0004"  # 10 at +0 ms, 11 at +1 ms
        "02acfffe"  # 13 at +171 ms, 14 at -0.5 ms
    )


def test_nothing_new_makes_no_report() -> None:
    feedback = TransportFeedback(1)
    assert feedback.report(2) is None
    feedback.add(1, 0.0)
    assert feedback.report(2) is not None
    assert feedback.report(2) is None


def test_reports_follow_each_other_and_are_counted() -> None:
    feedback = TransportFeedback(1)
    feedback.add(0xFFFF, 0.0)
    first = parse(feedback.report(2) or b"")
    feedback.add(1, 0.01)  # 0 is missing, behind the wrap-around
    second = parse(feedback.report(2) or b"")
    assert (first.base, first.count, first.feedback_count) == (0xFFFF, 1, 0)
    assert (second.base, second.count, second.feedback_count) == (0, 2, 1)
    assert second.arrivals_us[0] is None
    assert second.arrivals_us[1] is not None


def test_a_late_packet_is_told_together_with_its_successors() -> None:
    feedback = TransportFeedback(1)
    for sequence in (0, 2, 3):
        feedback.add(sequence, sequence * 0.01)
    feedback.report(2)
    feedback.add(1, 0.05)
    late = parse(feedback.report(2) or b"")
    assert late.base == 1
    assert late.arrivals_us == [50_000, 20_000, 30_000]


@given(
    base=st.integers(0, 0xFFFF),
    arrivals=st.lists(
        st.tuples(st.booleans(), st.integers(-20_000, 400_000)), min_size=1, max_size=200
    ),
)
def test_every_arrival_can_be_read_back(base: int, arrivals: list[tuple[bool, int]]) -> None:
    feedback = TransportFeedback(1)
    now_us = 1_000_000
    expected: list[int | None] = []
    for index, (received, step_us) in enumerate(arrivals):
        now_us += step_us
        now_us = max(now_us, 0)
        expected.append(now_us if received else None)
        if received:
            feedback.add((base + index) & 0xFFFF, now_us / 1e6)
    report = feedback.report(2)
    received_at = [i for i, arrival in enumerate(expected) if arrival is not None]
    if not received_at:
        assert report is None
        return
    parsed = parse(report or b"")
    told = expected[received_at[0] : received_at[-1] + 1]
    assert parsed.base == (base + received_at[0]) & 0xFFFF
    assert len(parsed.arrivals_us) == len(told)
    for want, got in zip(told, parsed.arrivals_us, strict=True):
        assert (want is None) == (got is None)
        if want is not None and got is not None:
            assert abs(want - got) <= 250  # one tick
