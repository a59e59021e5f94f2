"""WebRTC sessions and file I/O: RTP and av frames on one side, our values on the other."""

from streamlift.media.audio import AudioRelays
from streamlift.media.egress import Packetizer, WhepViewer
from streamlift.media.ingest import WhipPublisher
from streamlift.media.sdp import Offer, Role, read_fragment, read_offer
from streamlift.media.sessions import Session, Sessions
from streamlift.media.snapshot import picture_as_jpeg
from streamlift.media.turn import ice_link, ice_servers

__all__ = [
    "AudioRelays",
    "Offer",
    "Packetizer",
    "Role",
    "Session",
    "Sessions",
    "WhepViewer",
    "WhipPublisher",
    "ice_link",
    "ice_servers",
    "picture_as_jpeg",
    "read_fragment",
    "read_offer",
]
