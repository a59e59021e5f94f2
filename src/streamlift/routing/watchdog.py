"""Tells a hung lane from one that collects frames for its next step."""

from __future__ import annotations

from collections import deque

__all__ = ["Watchdog"]

SILENCE_S = 0.2
"""What a lane may take beyond its own habit."""
FIRST_S, FIRST_FRAMES = 3.0, 32
"""A new lane may take this many frames, and this long, for its first answer."""
LEARNING_S, LEARNING_FRAMES = 1.2, 16
"""The same for those after it, until its habit is known."""
RECENT = 32
LONGEST_ANSWER_S = 1.0


class Watchdog:
    """Learns how many frames a lane takes between two answers, and how long it then needs.

    It is hung when that many frames are there and it has been silent for 200 ms longer than it
    has recently needed: 200 ms for a per-frame model, one step and 200 ms for a chunked one. A
    publisher that pauses raises no alarm, because no further frames are there. Until sixteen
    frames after its first answer the habit is not known, and nothing is said.
    """

    __slots__ = (
        "_answers_s",
        "_complete_s",
        "_first_offer_s",
        "_since_answer",
        "_since_first",
        "_steps",
        "silence_s",
    )

    def __init__(self, silence_s: float = SILENCE_S) -> None:
        self.silence_s = silence_s
        self._steps: deque[int] = deque(maxlen=RECENT)
        self._answers_s: deque[float] = deque(maxlen=RECENT)
        self._since_answer = 0  # frames offered since the last answer
        self._since_first = 0  # frames offered since the first answer
        self._first_offer_s = 0.0  # of the frames since the last answer
        self._complete_s: float | None = None  # when the frames of a step were there

    @property
    def step(self) -> int:
        """The most frames that the lane has lately taken between two answers; 1 at first."""
        return max(self._steps, default=1)

    def offered(self, now_s: float) -> None:
        self._since_answer += 1
        if self._steps:
            self._since_first += 1
        if self._since_answer == 1:
            self._first_offer_s = now_s
        if self._complete_s is None and self._since_answer >= self.step:
            self._complete_s = now_s

    def answered(self, now_s: float) -> None:
        if self._since_answer == 0:
            return  # a further frame of the same step
        if self._since_answer <= max(self._steps, default=0):  # else it was a longer step
            needed_s = 0.0 if self._complete_s is None else now_s - self._complete_s
            self._answers_s.append(min(needed_s, LONGEST_ANSWER_S))
        self._steps.append(self._since_answer)
        self._since_answer = 0
        self._complete_s = None

    def hung(self, now_s: float) -> bool:
        if self._since_answer == 0:
            return False
        if not self._steps:
            silent_s = now_s - self._first_offer_s
            return silent_s > FIRST_S and self._since_answer >= FIRST_FRAMES
        if self._since_first < LEARNING_FRAMES:
            return False
        if len(self._steps) == 1:  # has answered once, and nothing since
            return now_s - self._first_offer_s > LEARNING_S
        if self._complete_s is None:
            return False
        return now_s - self._complete_s > max(self._answers_s, default=0.0) + self.silence_s
