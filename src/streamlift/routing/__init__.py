"""Named streams and where their frames go; pure Python."""

from streamlift.routing.broadcast import Broadcast, Cursor
from streamlift.routing.ports import Backend, IngestCounts, Lane, Publisher
from streamlift.routing.router import Router
from streamlift.routing.settings import Idle, StreamSettings, View
from streamlift.routing.snapshot import (
    FrameCounts,
    LatencySnapshot,
    OutputSnapshot,
    PublisherSnapshot,
    StreamSnapshot,
)
from streamlift.routing.states import StreamState
from streamlift.routing.stream import Stream
from streamlift.routing.supervise import supervise

__all__ = [
    "Backend",
    "Broadcast",
    "Cursor",
    "FrameCounts",
    "Idle",
    "IngestCounts",
    "Lane",
    "LatencySnapshot",
    "OutputSnapshot",
    "Publisher",
    "PublisherSnapshot",
    "Router",
    "Stream",
    "StreamSettings",
    "StreamSnapshot",
    "StreamState",
    "View",
    "supervise",
]
