"""What a switchboard asks and tells its stream."""

from __future__ import annotations

from typing import Protocol

from streamlift.errors import BackendError
from streamlift.frames import EncodedFrame, LaneOptions
from streamlift.routing.events import EventKind
from streamlift.routing.feed import Feed
from streamlift.routing.ports import Lane

__all__ = ["Viewport"]


class Viewport(Protocol):
    """The stream, as its switchboard sees it. Nothing here waits or raises."""

    def lane_options(self) -> LaneOptions: ...

    def leads(self, encoded: EncodedFrame) -> bool:
        """Whether the frame is of the default rendition, whose timing all others follow."""
        ...

    def show(self, encoded: EncodedFrame, feed: Feed) -> None:
        """A frame to go out now."""
        ...

    def refused(self, error: BackendError) -> None:
        """The stream's backend has no slot: its publisher must be turned away."""
        ...

    def crossing(self, begins: bool, reason: str) -> None:
        """A visible move to another backend begins or has ended."""
        ...

    def tell(
        self,
        kind: EventKind,
        *,
        before: str | None = None,
        after: str | None = None,
        gap_ms: float | None = None,
        reason: str = "",
    ) -> None: ...

    def drop(self, reason: str, amount: int) -> None: ...

    def lane_ended(self, lane: Lane) -> None: ...
