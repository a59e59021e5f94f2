"""What a stream's viewers can watch: a broadcast per rendition, and the publisher's own picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from streamlift.clock import Clock
from streamlift.frames import Codec, EncodedFrame, Rendition
from streamlift.routing.broadcast import Broadcast, Cursor
from streamlift.routing.open_lane import Delivered, OpenLane
from streamlift.routing.settings import View
from streamlift.routing.source import SourceView

__all__ = ["Fanout"]

Format = tuple[Codec, str, bool]
"""What tells renditions apart for viewers: codec, profile, thin; the bit rate may change."""


class Fanout:
    """The way out of a stream. `rendition` is the default one, which leads all others.

    `ask_keyframe` and `ask_publisher` are called when a viewer (of the source view: the latter)
    needs a keyframe, `on_viewers` when one comes or goes, `on_skipped` with the number of frames
    that one was too slow for.
    """

    def __init__(
        self,
        clock: Clock,
        rendition: Rendition,
        ask_keyframe: Callable[[], None],
        ask_publisher: Callable[[], None],
        on_viewers: Callable[[], None],
        on_skipped: Callable[[int], None],
    ) -> None:
        self._clock = clock
        self._ask_keyframe = ask_keyframe
        self._on_viewers = on_viewers
        self._on_skipped = on_skipped
        self._broadcasts: dict[Format, Broadcast] = {}
        self._last: dict[Format, tuple[OpenLane, int]] = {}  # lane and pts of the last one shown
        self.source = SourceView(Broadcast(clock, ask_publisher, on_viewers, on_skipped))
        self.rendition = rendition
        self.followers: list[Callable[[int], None]] = []
        """Called with the pts of each picture of the default rendition as it goes out."""
        self._broadcast(rendition)

    @property
    def viewers(self) -> int:
        """Sessions that watch any view."""
        return self.source.broadcast.viewers + sum(b.viewers for b in self._broadcasts.values())

    def watch(self, view: View, codec: Codec | None, *, thin: bool = False) -> Cursor:
        """A viewer's cursor; the codec defaults to the default rendition's."""
        if view is View.SOURCE:
            return self.source.broadcast.cursor()
        codec = codec or self.rendition.codec
        profile = self.rendition.profile if codec is self.rendition.codec else ""
        rendition = dataclasses.replace(self.rendition, codec=codec, profile=profile, thin=thin)
        return self._broadcast(rendition).cursor()

    def renditions(self) -> frozenset[Rendition]:
        """What must be encoded: the default one always, others while they are watched."""
        return frozenset(
            dataclasses.replace(self.rendition, codec=codec, profile=profile, thin=thin)
            for (codec, profile, thin), broadcast in self._broadcasts.items()
            if broadcast.viewers or (codec, profile, thin) == _format(self.rendition)
        )

    def leads(self, encoded: EncodedFrame) -> bool:
        """Whether the frame is of the default rendition."""
        return _format(encoded.rendition) == _format(self.rendition)

    def show(self, one: Delivered) -> bool:
        """Put a frame out; False if no decoder could go on with it.

        That is a step back in time, or another lane's frame that is no keyframe.
        """
        encoded = one.encoded
        kind = _format(encoded.rendition)
        before, last_pts = self._last.get(kind, (None, -1))
        if encoded.pts <= last_pts or (before is not one.lane and not encoded.keyframe):
            return False
        self._last[kind] = (one.lane, encoded.pts)
        self._broadcast(encoded.rendition).put(encoded)
        if one.leads:
            self.source.release(encoded.pts)
            for follow in self.followers:
                follow(encoded.pts)
        return True

    def close(self) -> None:
        """End all viewers."""
        self.source.broadcast.close()
        for broadcast in self._broadcasts.values():
            broadcast.close()

    def _broadcast(self, rendition: Rendition) -> Broadcast:
        kind = _format(rendition)
        broadcast = self._broadcasts.get(kind)
        if broadcast is None:
            broadcast = Broadcast(
                self._clock, self._ask_keyframe, self._on_viewers, self._on_skipped
            )
            self._broadcasts[kind] = broadcast
        return broadcast


def _format(rendition: Rendition) -> Format:
    return rendition.codec, rendition.profile, rendition.thin
