"""When a lane sends the publisher's access unit and when the picture, and when it asks for more."""

from __future__ import annotations

import numpy as np
import pytest

from streamlift.cluster.units import ASK_EVERY_S, MOST_UNIT_BYTES, STARVED_S, UnitPlan
from streamlift.frames import Codec, CodedVideo, Colour, Frame, Planes, Size


def frame(
    number: int | None, *, key: bool = False, codec: Codec = Codec.H264, data: bytes = b"unit"
) -> Frame:
    y, c = np.zeros((64, 64), np.uint8), np.zeros((32, 32), np.uint8)
    coded = None if number is None else CodedVideo(codec, data, key, number)
    return Frame((number or 0) * 3600, Size(64, 64), Planes(y, c, c), Colour(), 0.0, coded)


def ways(plan: UnitPlan, *frames: Frame) -> str:
    """U for a unit, P for a picture, ? behind a picture with which the source is asked."""
    told = ""
    for at, one in enumerate(frames):
        told += "U" if plan.sends_unit(one, at * 0.04) else "P?" if plan.ask else "P"
    return told


def test_units_begin_at_a_keyframe_and_go_on_while_none_is_missing() -> None:
    plan = UnitPlan([Codec.H264])
    assert ways(plan, frame(7), frame(8), frame(9, key=True), frame(10), frame(11)) == "P?PUUU"


def test_a_missing_unit_breaks_the_chain_until_the_next_keyframe() -> None:
    plan = UnitPlan([Codec.H264])
    assert ways(plan, frame(0, key=True), frame(1), frame(3), frame(4), frame(5, key=True)) == (
        "UUP?PU"
    )


def test_a_frame_that_was_left_out_breaks_the_chain() -> None:
    plan = UnitPlan([Codec.H264])
    assert ways(plan, frame(0, key=True), frame(1)) == "UU"
    plan.broken()
    assert ways(plan, frame(2), frame(3, key=True)) == "P?U"


def test_the_source_is_asked_once_in_half_a_second() -> None:
    plan = UnitPlan([Codec.H264])
    asked = []
    for number in range(1, 101):
        plan.sends_unit(frame(number), number * 0.01)
        if plan.ask:
            asked.append(number * 0.01)
    assert asked == pytest.approx([0.01, 0.51], abs=0.015)
    assert asked[1] - asked[0] >= ASK_EVERY_S


def test_a_publisher_that_makes_no_keyframe_goes_on_as_pictures_and_is_asked_less_often() -> None:
    plan = UnitPlan([Codec.H264])
    asked = []
    for number in range(1, 1001):
        now_s = number * 0.04
        assert not plan.sends_unit(frame(number), now_s)
        if plan.ask:
            asked.append(now_s)
    early = [at for at in asked if at <= STARVED_S]
    late = [at for at in asked if at > STARVED_S + 0.1]
    assert len(early) == pytest.approx(STARVED_S / ASK_EVERY_S, abs=1)
    assert len(late) == pytest.approx((40.0 - STARVED_S) / STARVED_S, abs=1)
    assert plan.sends_unit(frame(1001, key=True), 41.0)
    # What is missing after that is asked for as soon as ever.
    plan.broken()
    plan.sends_unit(frame(1002), 41.04)
    assert plan.ask


def test_a_unit_that_no_worker_takes_goes_as_a_picture_and_breaks_the_chain() -> None:
    plan = UnitPlan([Codec.H264])
    large = frame(1, data=bytes(MOST_UNIT_BYTES + 1))
    assert ways(plan, frame(0, key=True), large, frame(2), frame(3, key=True)) == "UP?PU"
    # Of a publisher whose keyframes are all too large none is asked for each half a second.
    asked = 0
    for number in range(4, 1004):
        big = frame(number, key=True, data=bytes(MOST_UNIT_BYTES + 1))
        assert not plan.sends_unit(big, number * 0.04)
        asked += plan.ask
    assert asked < 25


def test_reordered_pictures_are_sent_as_pictures_and_no_keyframe_is_asked_for() -> None:
    plan = UnitPlan([Codec.H264])
    # I0 B2 B3 P1 as shown; from the first one out of order it is known.
    assert ways(plan, frame(0, key=True), frame(2), frame(3), frame(1), frame(5), frame(4)) == (
        "UP?PPPP"
    )
    assert ways(plan, frame(6, key=True), frame(8), frame(7)) == "PPP"


def test_what_the_worker_does_not_decode_and_what_has_no_unit_goes_as_pictures() -> None:
    assert ways(UnitPlan([Codec.H264]), frame(0, key=True, codec=Codec.VP8)) == "P"
    assert ways(UnitPlan(), frame(0, key=True), frame(1)) == "PP"
    plan = UnitPlan([Codec.H264])
    assert ways(plan, frame(0, key=True), frame(None), frame(1)) == "UPP?"
