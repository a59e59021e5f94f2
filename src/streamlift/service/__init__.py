"""What the service does, without HTTP: joins routing and media."""

from streamlift.service.callers import Caller, Guesses, address_of
from streamlift.service.downloads import Downloads
from streamlift.service.files import UPSCALERS as UPSCALERS_OF_FILES
from streamlift.service.files import FileJob, FileJobs, JobState, Wanted
from streamlift.service.followers import Followers
from streamlift.service.grants import LONGEST_LINK_S, Grant, Grants, Scope
from streamlift.service.loop_lag import LoopWatch
from streamlift.service.outputs import CameraPush, Output, Outputs, Push, Recorder
from streamlift.service.pulls import PullPublisher, Pulls, PullState, Source
from streamlift.service.pushes import PushOrder
from streamlift.service.readers import RtspDoor, rtsp_socket
from streamlift.service.service import Answered, Compare, Service
from streamlift.service.sessions import Role, Session, Sessions
from streamlift.service.snapshots import Snapshots

__all__ = [
    "LONGEST_LINK_S",
    "UPSCALERS_OF_FILES",
    "Answered",
    "Caller",
    "CameraPush",
    "Compare",
    "Downloads",
    "FileJob",
    "FileJobs",
    "Followers",
    "Grant",
    "Grants",
    "Guesses",
    "JobState",
    "LoopWatch",
    "Output",
    "Outputs",
    "PullPublisher",
    "PullState",
    "Pulls",
    "Push",
    "PushOrder",
    "Recorder",
    "Role",
    "RtspDoor",
    "Scope",
    "Service",
    "Session",
    "Sessions",
    "Snapshots",
    "Source",
    "Wanted",
    "address_of",
    "rtsp_socket",
]
