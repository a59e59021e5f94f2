"""What the service does, without HTTP: joins routing and media."""

from streamlift.service.outputs import Output, Outputs, Recorder, WhipPush
from streamlift.service.pulls import PullPublisher, Pulls, Source
from streamlift.service.service import Answered, Service
from streamlift.service.sessions import Role, Session, Sessions
from streamlift.service.snapshots import Snapshots

__all__ = [
    "Answered",
    "Output",
    "Outputs",
    "PullPublisher",
    "Pulls",
    "Recorder",
    "Role",
    "Service",
    "Session",
    "Sessions",
    "Snapshots",
    "Source",
    "WhipPush",
]
