"""Sound that passes by: given back once, with the picture that it came with."""

from __future__ import annotations

from collections import deque
from typing import Any

__all__ = ["Sound"]

_MOST_WAITING = 64


class Sound:
    """One session's sound.

    Scope reads sound from the last stage only, and holds the picture until the first of it came.
    What a generator makes reaches a stage as parameters that stay until others come: so a tensor is
    new if it is another object. It is kept as long as the model keeps the frame it came with.
    """

    def __init__(self) -> None:
        self.lost = 0
        """Pieces given up: more than 64 waited for their frame."""
        self._latest: object | None = None
        self._waiting: deque[tuple[int, object, object]] = deque()

    def heard(self, audio: object, sample_rate: object, frames_before: int) -> None:
        """Note what a call brought; `frames_before` frames were taken before its own."""
        if audio is None or sample_rate is None or audio is self._latest:
            return
        self._latest = audio
        self._waiting.append((frames_before, audio, sample_rate))
        if len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft()
            self.lost += 1

    def due(self, frames_out: int) -> dict[str, Any]:
        """The next piece whose frame is among the `frames_out` given back, as Scope wants it."""
        if not self._waiting or frames_out <= self._waiting[0][0]:
            return {}
        _, audio, sample_rate = self._waiting.popleft()
        return {"audio": audio, "audio_sample_rate": sample_rate}

    def forget(self) -> None:
        """A new session: what waits belongs to pictures that are not shown any more."""
        self._waiting.clear()
