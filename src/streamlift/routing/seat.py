"""A stream's one seat for a publisher: who sits there, and how a second one takes it over."""

from __future__ import annotations

import asyncio

from streamlift.errors import StreamTaken
from streamlift.routing.ports import IngestCounts, Publisher
from streamlift.tasks import supervise

__all__ = ["Seat"]


class Seat:
    """Whose pictures the stream shows. `lasting`: they stay, with pictures or without."""

    def __init__(self, stream: str) -> None:
        self.publisher: Publisher | None = None
        self.lasting = False
        self.fresh = False  # the next frame is its publisher's first
        self._stream = stream

    @property
    def counts(self) -> IngestCounts | None:
        """What the publisher of now has counted."""
        return None if self.publisher is None else self.publisher.counts

    def must_be_free(self, takeover: bool) -> None:
        """Raises StreamTaken when somebody sits there who may not be sent away."""
        if self.publisher is not None and not takeover:
            raise StreamTaken(
                f"stream {self._stream} already has a publisher; end it first or allow takeover",
                found=self._stream,
            )

    def take(self, publisher: Publisher, lasting: bool) -> None:
        self.publisher, self.lasting, self.fresh = publisher, lasting, True

    def leave(self) -> None:
        self.publisher, self.lasting, self.fresh = None, False, False

    def send_away(self, tasks: asyncio.TaskGroup, publisher: Publisher, reason: str) -> None:
        """End a publisher's session, in a task of its own."""
        what = f"stream {self._stream}: former publisher"
        tasks.create_task(supervise(what, publisher.aclose(reason)))

    def request_keyframe(self) -> None:
        if self.publisher is not None:
            self.publisher.request_keyframe()
