"""The move of the picture from one lane to the next: its states as a table, and the decision.

Two rules. A transition is in exactly one phase, and only the steps in the table change it; any
other step there is a mistake and raises. Only in LANDING and after is the new lane the shown one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from streamlift.routing.open_lane import OpenLane

__all__ = [
    "TABLE",
    "Cause",
    "Kind",
    "Move",
    "Phase",
    "Step",
    "SwitchMode",
    "Transition",
    "TransitionFacts",
    "decide",
    "hold_offset",
]

PROBE_FRAMES = 6
"""Frames of the newcomer before its delay is believed: a primed chunked model gives one at once,
and shows its real delay only with its next steps."""
JUMP_S = 0.12
"""A newcomer faster by more than this is shown by jumping forward."""
PATIENCE_S = 1.5
"""How long frames of a finished lane may hold up those of its successor."""
MARGIN_S = 0.01


class Kind(StrEnum):
    """How the new lane relates to the old one."""

    SWITCH = "switch"  # both are fed; the old one goes on until the new one is in step
    SUCCESSION = "succession"  # the old one was finished, or failed; the new one follows it


class SwitchMode(StrEnum):
    """What becomes of the delay when backends differ in it."""

    LOW_LATENCY = "low_latency"  # jump forward to a faster one
    CONSTANT_LATENCY = "constant_latency"  # keep the delay of the slower one


class Cause(StrEnum):
    """Why the picture moves."""

    ROUTINE = "routine"  # another size, publisher or slate; users are not told
    ASKED = "asked"  # a user or a policy asked for the backend
    RETURN = "return"  # back to the wanted backend, after a fault or once it is ready
    FAULT = "fault"  # the lane before failed


class Phase(StrEnum):
    """Where a transition is."""

    OPENING = "opening"  # the new lane has delivered nothing yet
    PROVING = "proving"  # it delivers; its delay is not yet known, or too long
    IN_STEP = "in_step"  # it keeps up: frames go to it alone, the shown lane pays what it owes
    LANDING = "landing"  # it is the shown lane; its first picture has yet to go out
    DONE = "done"
    GIVEN_UP = "given_up"


class Step(StrEnum):
    """What can happen to a transition."""

    DELIVERED = "delivered"  # the new lane delivers
    CAUGHT_UP = "caught_up"  # it is believed to be in step
    CUT = "cut"  # it became the shown lane
    SEEN = "seen"  # its first picture went out
    ABANDONED = "abandoned"  # it failed, came too late, or another transition is due


_P, _S = Phase, Step

# fmt: off
TABLE: Mapping[Phase, Mapping[Step, Phase]] = {
    _P.OPENING:  {_S.DELIVERED: _P.PROVING, _S.ABANDONED: _P.GIVEN_UP},
    _P.PROVING:  {_S.CAUGHT_UP: _P.IN_STEP, _S.CUT: _P.LANDING, _S.ABANDONED: _P.GIVEN_UP},
    _P.IN_STEP:  {_S.CUT:       _P.LANDING, _S.ABANDONED: _P.GIVEN_UP},
    _P.LANDING:  {_S.SEEN:      _P.DONE,    _S.ABANDONED: _P.GIVEN_UP},
    _P.DONE:     {},
    _P.GIVEN_UP: {},
}
# fmt: on


class Move(StrEnum):
    """What to do now."""

    STAY = "stay"
    HAND_OVER = "hand_over"  # give further frames to the newcomer alone
    CUT = "cut"  # show the newcomer from its keyframe on


@dataclass(frozen=True, slots=True)
class TransitionFacts:
    """Where both lanes are. Offsets: see `pacing`.

    `frames`: how many the newcomer delivered, `high`: its high offset. `shown`: offset at which
    the last picture went out; `usual`: the old lane's median offset, which a stall does not move;
    `worst`: its high offset, which viewers are used to as well.
    `key_waited_s`: how long the newcomer's keyframe to begin with has been ready; None if there is
    none. `old_comes_first`: the old lane has pending, or will still deliver, pictures before that
    keyframe.
    """

    mode: SwitchMode
    frames: int
    shown: float | None
    usual: float | None
    worst: float | None
    high: float | None
    key_waited_s: float | None
    old_comes_first: bool


class Transition:
    """One move of the picture, from the opening of the new lane until it is seen or given up.

    `before` and `lane.backend` are the backends it moves between, maybe the same.
    """

    def __init__(
        self,
        kind: Kind,
        cause: Cause,
        lane: OpenLane,
        *,
        before: str | None,
        began_s: float,
    ) -> None:
        self.kind = kind
        self.cause = cause
        self.lane = lane
        self.before = before
        self.reason = ""
        self.began_s = began_s
        self.back_to: str | None = None  # what is wanted again if a switch that was asked for fails
        self.phase = Phase.OPENING
        self.last_s: float | None = None  # when the last picture before the cut went out

    @property
    def after(self) -> str:
        return self.lane.backend

    @property
    def coming(self) -> bool:
        """The lane before is still the shown one."""
        return self.phase in (Phase.OPENING, Phase.PROVING, Phase.IN_STEP)

    @property
    def told(self) -> bool:
        """Whether users are told of it: it leads to another backend, or away from a fault."""
        return self.kind is Kind.SWITCH or self.cause is Cause.FAULT

    def take(self, step: Step) -> None:
        """Follow the table. Raises ValueError for a step that the phase does not know."""
        try:
            self.phase = TABLE[self.phase][step]
        except KeyError:
            raise ValueError(
                f"a transition that is {self.phase} cannot be {step}; "
                f"it can be {', '.join(TABLE[self.phase]) or 'nothing more'}"
            ) from None

    def consider(self, facts: TransitionFacts) -> Move:
        """What to do now; takes the steps that the new lane's own progress means."""
        if not self.coming:
            return Move.STAY
        if self.phase is Phase.OPENING and facts.frames:
            self.take(Step.DELIVERED)
        move = decide(self.kind, self.phase, facts)
        if move is Move.HAND_OVER:
            self.take(Step.CAUGHT_UP)
        return move


def decide(kind: Kind, phase: Phase, facts: TransitionFacts) -> Move:
    """A lane that gets all frames is shown from its first keyframe on, once nothing older is to
    come. The newcomer of a switch gets them all when it is in step, and encodes from then on."""
    if kind is Kind.SUCCESSION:
        return _follow(facts)
    match phase:
        case Phase.PROVING if _caught_up(facts):
            return Move.HAND_OVER
        case Phase.IN_STEP if facts.key_waited_s is not None and _jumps(facts):
            return Move.CUT
        case Phase.IN_STEP:
            return _follow(facts)
        case _:
            return Move.STAY


def hold_offset(high: float | None, spread: float, frames: int) -> float | None:
    """The offset to which the old lane's pictures are held back, so that the newcomer's are there
    in time; None while nothing is known about it."""
    if high is None or frames < PROBE_FRAMES:
        return None
    return high + MARGIN_S + 0.1 * spread


def _caught_up(facts: TransitionFacts) -> bool:
    if facts.frames < PROBE_FRAMES or facts.high is None:
        return False
    if facts.shown is None:
        return True
    # Between equals the last picture may have been an early one of the old lane.
    return facts.high <= max(facts.shown, facts.worst or facts.shown)


def _jumps(facts: TransitionFacts) -> bool:
    """Whether the newcomer is faster by so much that pictures are skipped to show it at once.

    A picture that a stall made late is no reason: between equals nothing is skipped.
    """
    if facts.mode is SwitchMode.CONSTANT_LATENCY or facts.shown is None or facts.high is None:
        return False
    old = facts.shown if facts.usual is None else min(facts.shown, facts.usual)
    return facts.high - old < -JUMP_S


def _follow(facts: TransitionFacts) -> Move:
    if facts.key_waited_s is None:
        return Move.STAY
    waits = facts.old_comes_first and facts.key_waited_s <= PATIENCE_S
    return Move.STAY if waits else Move.CUT
