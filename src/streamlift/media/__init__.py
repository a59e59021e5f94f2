"""WebRTC sessions and file I/O: RTP and av frames on one side, our values on the other."""

from streamlift.media.egress import Packetizer, WhepViewer
from streamlift.media.ingest import WhipPublisher
from streamlift.media.sdp import Offer, Role, read_offer
from streamlift.media.sessions import Session, Sessions
from streamlift.media.snapshot import picture_as_jpeg

__all__ = [
    "Offer",
    "Packetizer",
    "Role",
    "Session",
    "Sessions",
    "WhepViewer",
    "WhipPublisher",
    "picture_as_jpeg",
    "read_offer",
]
