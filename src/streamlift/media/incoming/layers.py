"""One picture that arrives in several sizes (simulcast): the largest that comes is taken. Pure.

What an offer says of the sizes is a promise at most: some peers number the largest 0, some send
all of them whatever was answered, and a narrow link makes the largest stop for a while. What
arrives decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamlift.frames import Size

__all__ = ["SILENT_S", "Layers"]

SILENT_S = 1.0
"""A size that has not come for so long gives way to the next."""
_MOST = 8


@dataclass(slots=True)
class _Layer:
    area: int
    heard_s: float


class Layers:
    """Chooses among the RTP streams of one section; the caller brings the time."""

    def __init__(self) -> None:
        self._layers: dict[int, _Layer] = {}
        self._chosen: int | None = None

    def takes(self, ssrc: int, size: Size | None, now_s: float) -> bool:
        """Whether a packet belongs to the size that is taken. `size`: what the packet tells of
        it, which only the beginning of a keyframe does."""
        layer = self._layers.setdefault(ssrc, _Layer(0, now_s))
        layer.heard_s = now_s
        if size is not None:
            layer.area = size.width * size.height
        while len(self._layers) > _MOST:
            del self._layers[min(self._layers, key=lambda one: self._layers[one].heard_s)]
        if self._chosen is None:
            self._chosen = ssrc
        elif ssrc != self._chosen:
            self._consider(ssrc, begins=size is not None, now_s=now_s)
        return ssrc == self._chosen

    def _consider(self, ssrc: int, *, begins: bool, now_s: float) -> None:
        """Go over to a larger size where it begins, and to what there is when the chosen rests."""
        present = self._layers.get(self._chosen or 0)
        if present is None or now_s - present.heard_s > SILENT_S:
            alive = [s for s, one in self._layers.items() if now_s - one.heard_s <= SILENT_S]
            self._chosen = max(alive, key=lambda one: self._layers[one].area)
        elif begins and self._layers[ssrc].area > present.area:
            self._chosen = ssrc
