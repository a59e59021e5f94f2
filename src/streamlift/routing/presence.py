"""What viewers see while a stream has no pictures: the last one, then a slate; pure."""

from __future__ import annotations

from collections.abc import Callable

from streamlift.frames import Frame, Size

__all__ = ["Absence", "Slate"]

Slate = Callable[[Size, str], Frame]
"""Makes the labelled still picture of a stream without publisher, at a low-resolution size, with
the reason why there is none.
Called on the event loop about twice a second: keep the pictures. Its pts is not used."""

QUIET_S = 0.5
"""After so long without a new picture, a viewer that asks for one gets the last again."""
HOLD_S = 2.0
USUAL = Size(512, 512)
"""Of the slate, while no picture has told a size."""
SLATE_EVERY_S = 0.5
"""A viewer that joins meanwhile sees the slate within that time."""


class Absence:
    """Follows the frames' arrivals; the caller brings the time."""

    __slots__ = ("_last_s", "_seen", "_slate_s", "gone")

    def __init__(self, now_s: float) -> None:
        self._last_s = now_s
        self._slate_s = float("-inf")
        self._seen = False
        self.gone = True

    def frame(self, now_s: float) -> bool:
        """A frame came; True if that ends an absence, and is not the very first."""
        returns = self.gone and self._seen
        self.gone, self._seen, self._last_s = False, True, now_s
        return returns

    def left(self) -> bool:
        """The publisher is known to be gone; True if that is news."""
        was_gone, self.gone = self.gone, True
        return not was_gone

    def quiet(self, now_s: float) -> bool:
        """Whether a publisher that is there has shown nothing new lately."""
        return not self.gone and now_s - self._last_s > QUIET_S

    def lasted_s(self, now_s: float) -> float:
        """Seconds since the last frame; 0 while frames come."""
        return now_s - self._last_s if self.gone else 0.0

    def slate_due(self, now_s: float) -> bool:
        """Whether to show a slate now; True twice a second from two seconds of absence on."""
        if self.lasted_s(now_s) < HOLD_S or now_s - self._slate_s < SLATE_EVERY_S - 1e-6:
            return False
        self._slate_s = now_s
        return True
