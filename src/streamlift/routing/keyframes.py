"""Merging of keyframe requests: at most one per half second, and none is lost."""

from __future__ import annotations

__all__ = ["KEYFRAME_SPACING_S", "KeyframeRequests"]

KEYFRAME_SPACING_S = 0.5


class KeyframeRequests:
    """Says when a keyframe is to be made; pure, the caller brings the time.

    A request inside the window after a made keyframe is deferred to the window's end, because
    the viewer that sent it may have lost that very keyframe.
    """

    __slots__ = ("_deferred", "_made_s", "_spacing_s")

    def __init__(self, spacing_s: float = KEYFRAME_SPACING_S) -> None:
        self._spacing_s = spacing_s
        self._made_s: float | None = None
        self._deferred = False

    def ask(self, now_s: float) -> bool:
        """A viewer wants a keyframe. True: make one now."""
        self._deferred = True
        return self.due(now_s)

    def due(self, now_s: float) -> bool:
        """To be called with every frame. True: make the deferred keyframe now."""
        if not self._deferred:
            return False
        # The tolerance keeps "every 500 ms" from slipping by one frame through rounding.
        if self._made_s is not None and now_s - self._made_s < self._spacing_s - 1e-6:
            return False
        self._made_s = now_s
        self._deferred = False
        return True
