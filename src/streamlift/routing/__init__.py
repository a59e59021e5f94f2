"""Named streams and where their frames go; pure Python."""

from streamlift.routing.backends import BackendTable
from streamlift.routing.broadcast import Broadcast, Cursor
from streamlift.routing.comparison import Comparison
from streamlift.routing.events import Event, EventKind, EventLog, Subscription
from streamlift.routing.policy import (
    Choice,
    MatrixRow,
    Policy,
    choose,
    decision_matrix,
)
from streamlift.routing.ports import Backend, IngestCounts, Lane, Publisher
from streamlift.routing.router import Router
from streamlift.routing.settings import Idle, StreamSettings, View
from streamlift.routing.states import StreamState
from streamlift.routing.status import (
    FrameCounts,
    LatencySnapshot,
    OutputSnapshot,
    PublisherSnapshot,
    StreamSnapshot,
)
from streamlift.routing.stream import Slate, Stream
from streamlift.routing.transition import SwitchMode
from streamlift.routing.tuning import Change

__all__ = [
    "Backend",
    "BackendTable",
    "Broadcast",
    "Change",
    "Choice",
    "Comparison",
    "Cursor",
    "Event",
    "EventKind",
    "EventLog",
    "FrameCounts",
    "Idle",
    "IngestCounts",
    "Lane",
    "LatencySnapshot",
    "MatrixRow",
    "OutputSnapshot",
    "Policy",
    "Publisher",
    "PublisherSnapshot",
    "Router",
    "Slate",
    "Stream",
    "StreamSettings",
    "StreamSnapshot",
    "StreamState",
    "Subscription",
    "SwitchMode",
    "View",
    "choose",
    "decision_matrix",
]
