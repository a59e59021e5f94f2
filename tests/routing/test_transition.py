"""The move from lane to lane: its table, and the decision when the picture moves."""

from __future__ import annotations

import dataclasses

import pytest
from tests.routing.fakes import SMALL, FakeBackend
from tests.routing.virtual_time import LoopClock

from streamlift.routing.open_lane import OpenLane, Purpose
from streamlift.routing.transition import (
    TABLE,
    Cause,
    Kind,
    Move,
    Phase,
    Step,
    SwitchMode,
    Transition,
    TransitionFacts,
    decide,
    hold_offset,
)

SWITCH = TransitionFacts(
    mode=SwitchMode.LOW_LATENCY,
    frames=6,
    shown=0.02,
    usual=None,
    worst=None,
    high=0.02,
    key_waited_s=None,
    old_comes_first=False,
)
SUCCESSION = dataclasses.replace(SWITCH, frames=1)


def transition(kind: Kind = Kind.SWITCH) -> Transition:
    lane = OpenLane("b", FakeBackend(LoopClock(), "b"), SMALL, Purpose())
    return Transition(kind, Cause.ASKED, lane, before="a", began_s=0.0)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("step", Step)
def test_every_step_is_in_the_table_or_raises(phase: Phase, step: Step) -> None:
    move = transition()
    move.phase = phase
    if step in TABLE[phase]:
        move.take(step)
        assert move.phase is TABLE[phase][step]
    else:
        with pytest.raises(ValueError, match=f"{phase} cannot be {step}"):
            move.take(step)
        assert move.phase is phase


def test_every_phase_is_reached_and_all_but_two_can_be_left() -> None:
    assert set(TABLE) == set(Phase)
    reached = {after for row in TABLE.values() for after in row.values()}
    assert reached == set(Phase) - {Phase.OPENING}
    assert [phase for phase, row in TABLE.items() if not row] == [Phase.DONE, Phase.GIVEN_UP]
    assert all(Step.ABANDONED in row for row in TABLE.values() if row)


@pytest.mark.parametrize(
    ("kind", "facts", "changes", "move"),
    [
        # A switch in step: begin with the first keyframe, follow without a hole.
        (Kind.SWITCH, SWITCH, {}, Move.STAY),
        (Kind.SWITCH, SWITCH, {"key_waited_s": 0.0, "old_comes_first": True}, Move.STAY),
        (Kind.SWITCH, SWITCH, {"key_waited_s": 0.0}, Move.CUT),
        (Kind.SWITCH, SWITCH, {"key_waited_s": 1.6, "old_comes_first": True}, Move.CUT),
        # To a faster backend: jump, unless the delay is to stay.
        (
            Kind.SWITCH,
            SWITCH,
            {"shown": 0.4, "key_waited_s": 0.0, "old_comes_first": True},
            Move.CUT,
        ),
        (
            Kind.SWITCH,
            SWITCH,
            {"shown": 0.4, "usual": 0.3, "key_waited_s": 0.0, "old_comes_first": True},
            Move.CUT,
        ),
        # A stall just now is no slower backend.
        (
            Kind.SWITCH,
            SWITCH,
            {"shown": 0.4, "usual": 0.02, "key_waited_s": 0.0, "old_comes_first": True},
            Move.STAY,
        ),
        (
            Kind.SWITCH,
            SWITCH,
            {
                "shown": 0.4,
                "key_waited_s": 0.0,
                "old_comes_first": True,
                "mode": SwitchMode.CONSTANT_LATENCY,
            },
            Move.STAY,
        ),
        # A succession: the first keyframe, as soon as nothing older is to come.
        (Kind.SUCCESSION, SUCCESSION, {}, Move.STAY),
        (Kind.SUCCESSION, SUCCESSION, {"key_waited_s": 0.0}, Move.CUT),
        (
            Kind.SUCCESSION,
            SUCCESSION,
            {"key_waited_s": 0.5, "old_comes_first": True},
            Move.STAY,
        ),
        (
            Kind.SUCCESSION,
            SUCCESSION,
            {"key_waited_s": 1.6, "old_comes_first": True},
            Move.CUT,
        ),
        (Kind.SUCCESSION, SUCCESSION, {"key_waited_s": 0.0, "shown": None}, Move.CUT),
    ],
)
def test_decision(
    kind: Kind, facts: TransitionFacts, changes: dict[str, object], move: Move
) -> None:
    now = dataclasses.replace(facts, **changes)  # type: ignore[arg-type]
    begun = transition(kind)
    begun.phase = Phase.IN_STEP if kind is Kind.SWITCH else Phase.PROVING
    assert begun.consider(now) is move


@pytest.mark.parametrize(
    ("changes", "handed_over"),
    [
        ({}, True),
        ({"shown": None}, True),
        ({"frames": 5}, False),  # not yet believed
        ({"high": 0.4}, False),  # later than what is shown
        ({"high": 0.03}, False),
        ({"high": 0.03, "worst": 0.03}, True),  # no later than the old one is at times
        ({"high": 0.4, "key_waited_s": 0.0}, False),
        ({"frames": 0, "high": None}, False),
    ],
)
def test_a_newcomer_gets_all_frames_when_it_is_in_step(
    changes: dict[str, object], handed_over: bool
) -> None:
    move = transition()
    what = move.consider(dataclasses.replace(SWITCH, **changes))  # type: ignore[arg-type]
    assert what is (Move.HAND_OVER if handed_over else Move.STAY)
    assert (move.phase is Phase.IN_STEP) == handed_over


def test_a_newcomer_that_is_not_in_step_is_never_cut_to() -> None:
    ready = dataclasses.replace(SWITCH, frames=5, key_waited_s=0.0)
    for phase in (Phase.OPENING, Phase.PROVING):
        assert decide(Kind.SWITCH, phase, ready) is Move.STAY


def test_nothing_is_considered_after_the_cut() -> None:
    move = transition(Kind.SUCCESSION)
    ready = dataclasses.replace(SUCCESSION, key_waited_s=0.0)
    assert move.consider(ready) is Move.CUT
    move.take(Step.CUT)
    assert move.consider(ready) is Move.STAY


def test_the_old_picture_is_held_back_a_little_longer_than_the_newcomer_needs() -> None:
    assert hold_offset(0.44, 0.28, 13) == pytest.approx(0.478)
    assert hold_offset(0.44, 0.28, 5) is None
    assert hold_offset(None, 0.0, 0) is None
