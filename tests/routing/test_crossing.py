"""The decision when to move the picture, as a table."""

from __future__ import annotations

import dataclasses

import pytest

from streamlift.routing.crossing import (
    CrossingFacts,
    CrossingKind,
    Move,
    SwitchMode,
    decide,
    hold_offset,
)

SWITCH = CrossingFacts(
    kind=CrossingKind.SWITCH,
    mode=SwitchMode.LOW_LATENCY,
    frames=6,
    shown=0.02,
    usual=None,
    high=0.02,
    key_waited_s=None,
    old_comes_first=False,
)
HANDOVER = dataclasses.replace(SWITCH, kind=CrossingKind.HANDOVER, frames=1)


@pytest.mark.parametrize(
    ("facts", "changes", "move"),
    [
        # A switch: prove itself, come into step, make a keyframe, follow without a hole.
        (SWITCH, {"frames": 5, "key_waited_s": 0.2}, Move.STAY),
        (SWITCH, {"high": 0.4}, Move.STAY),
        (SWITCH, {}, Move.ASK),
        (SWITCH, {"key_waited_s": 0.0, "old_comes_first": True}, Move.STAY),
        (SWITCH, {"key_waited_s": 0.0}, Move.CUT),
        (SWITCH, {"key_waited_s": 1.6, "old_comes_first": True}, Move.CUT),
        # To a faster backend: jump, unless the delay is to stay.
        (SWITCH, {"shown": 0.4, "key_waited_s": 0.0, "old_comes_first": True}, Move.CUT),
        (
            SWITCH,
            {"shown": 0.4, "usual": 0.3, "key_waited_s": 0.0, "old_comes_first": True},
            Move.CUT,
        ),
        # A stall just now is no slower backend.
        (
            SWITCH,
            {"shown": 0.4, "usual": 0.02, "key_waited_s": 0.0, "old_comes_first": True},
            Move.STAY,
        ),
        (
            SWITCH,
            {
                "shown": 0.4,
                "key_waited_s": 0.0,
                "old_comes_first": True,
                "mode": SwitchMode.CONSTANT_LATENCY,
            },
            Move.STAY,
        ),
        # A handover: the first keyframe, as soon as nothing older is to come.
        (HANDOVER, {}, Move.STAY),
        (HANDOVER, {"key_waited_s": 0.0}, Move.CUT),
        (HANDOVER, {"key_waited_s": 0.5, "old_comes_first": True}, Move.STAY),
        (HANDOVER, {"key_waited_s": 1.6, "old_comes_first": True}, Move.CUT),
        (HANDOVER, {"key_waited_s": 0.0, "shown": None}, Move.CUT),
    ],
)
def test_decision(facts: CrossingFacts, changes: dict[str, object], move: Move) -> None:
    assert decide(dataclasses.replace(facts, **changes)) is move  # type: ignore[arg-type]


def test_the_old_picture_is_held_back_a_little_longer_than_the_newcomer_needs() -> None:
    assert hold_offset(0.44, 0.28, 13) == pytest.approx(0.478)
    assert hold_offset(0.44, 0.28, 5) is None
    assert hold_offset(None, 0.0, 0) is None
