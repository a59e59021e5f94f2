"""When the picture moves from one lane to another; pure decisions over given facts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["CrossingFacts", "CrossingKind", "Move", "SwitchMode", "decide", "hold_offset"]

PROBE_FRAMES = 6
"""Frames of the newcomer before its delay is believed: a primed chunked model gives one at once,
and shows its real delay only with its next steps."""
JUMP_S = 0.12
"""A newcomer faster by more than this is shown by jumping forward."""
PATIENCE_S = 1.5
"""How long frames of a finished lane may hold up those of its successor."""
MARGIN_S = 0.01


class CrossingKind(StrEnum):
    """How the new lane relates to the old one."""

    SWITCH = "switch"  # both are fed; the old one goes on until the new one is in step
    HANDOVER = "handover"  # the old one was finished, or died; the new one follows it


class SwitchMode(StrEnum):
    """What becomes of the delay when backends differ in it."""

    LOW_LATENCY = "low_latency"  # jump forward to a faster one
    CONSTANT_LATENCY = "constant_latency"  # keep the delay of the slower one


class Move(StrEnum):
    """What to do now."""

    STAY = "stay"
    ASK = "ask"  # have the newcomer make a keyframe
    CUT = "cut"  # show the newcomer from its keyframe on


@dataclass(frozen=True, slots=True)
class CrossingFacts:
    """Where both lanes are. Offsets: see `pacing`.

    `frames`: how many the newcomer delivered, `high`: its high offset. `shown`: offset at which
    the last picture went out; `usual`: the old lane's median offset, which a stall does not move.
    `key_waited_s`: how long the newcomer's keyframe to begin with has
    been ready; None if there is none. `old_comes_first`: the old lane has pending, or will still
    deliver, pictures before that keyframe.
    """

    kind: CrossingKind
    mode: SwitchMode
    frames: int
    shown: float | None
    usual: float | None
    high: float | None
    key_waited_s: float | None
    old_comes_first: bool


def decide(facts: CrossingFacts) -> Move:
    """Stay until the newcomer is proven and in step, ask for a keyframe, cut there."""
    if facts.kind is CrossingKind.HANDOVER:
        return _follow(facts)
    if facts.frames < PROBE_FRAMES or facts.high is None:
        return Move.STAY
    behind_s = 0.0 if facts.shown is None else facts.high - facts.shown
    if facts.key_waited_s is None:
        return Move.ASK if behind_s <= 0 else Move.STAY
    return Move.CUT if _jumps(facts, facts.high) else _follow(facts)


def hold_offset(high: float | None, spread: float, frames: int) -> float | None:
    """The offset to which the old lane's pictures are held back, so that the newcomer's are there
    in time; None while nothing is known about it."""
    if high is None or frames < PROBE_FRAMES:
        return None
    return high + MARGIN_S + 0.1 * spread


def _jumps(facts: CrossingFacts, high: float) -> bool:
    """Whether the newcomer is faster by so much that pictures are skipped to show it at once.

    A picture that a stall made late is no reason: between equals nothing is skipped.
    """
    if facts.mode is SwitchMode.CONSTANT_LATENCY or facts.shown is None:
        return False
    old = facts.shown if facts.usual is None else min(facts.shown, facts.usual)
    return high - old < -JUMP_S


def _follow(facts: CrossingFacts) -> Move:
    if facts.key_waited_s is None:
        return Move.STAY
    waits = facts.old_comes_first and facts.key_waited_s <= PATIENCE_S
    return Move.STAY if waits else Move.CUT
