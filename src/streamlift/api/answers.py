"""The JSON that the API answers with, as types: our code is checked against them, OpenAPI is made
of them.

A field that is added to an answer is added here (mypy refuses it otherwise), and is then missing in
`streamlift.client.shapes`, which a test says.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from streamlift.frames import BackendState, Codec, Fit, Stabilise
from streamlift.routing import Idle, StreamState
from streamlift.service import JobState, PullState, Role

__all__ = [
    "About",
    "Backend",
    "Backends",
    "CameraOutput",
    "Comparison",
    "Download",
    "Event",
    "File",
    "FileOutput",
    "Files",
    "FilesDoor",
    "FrameCounts",
    "Health",
    "Link",
    "MissingWeights",
    "Output",
    "Outputs",
    "Plan",
    "Problem",
    "Publisher",
    "PushOutput",
    "Quantiles",
    "Readiness",
    "Rendition",
    "Session",
    "Slots",
    "Source",
    "Stream",
    "StreamOutput",
    "StreamSettings",
    "Streams",
    "Target",
    "Worker",
]


class Publisher(TypedDict):
    """What comes in; `fps` is measured."""

    codec: Codec | None
    size: list[int]
    fps: float | None


class Rendition(TypedDict):
    """One way in which the output is encoded now."""

    codec: Codec
    bitrate_bps: int
    profile: str


class StreamOutput(TypedDict):
    """What goes out; null while no picture has gone out for three seconds."""

    size: list[int] | None
    fps: float | None
    bitrate_bps: int | None
    renditions: list[Rendition]


class Quantiles(TypedDict):
    """Median and 95th percentile, in milliseconds."""

    p50: float
    p95: float


class FrameCounts(TypedDict):
    """Frames since the stream was opened; `dropped` by reason."""

    received: int
    decoded: int
    upscaled: int
    encoded: int
    dropped: dict[str, int]


class Target(TypedDict):
    """The size that is wanted: a factor of the publisher's sides, or a size and how to fit it."""

    scale: NotRequired[float]
    size: NotRequired[list[int]]
    fit: NotRequired[Fit]


class StreamSettings(TypedDict):
    """What can be changed of it; `stabilise` null leaves it to the backend."""

    bitrate_bps: int
    stabilise: Stabilise | None
    idle: Idle


class Comparison(TypedDict):
    """A backend that the shown picture is held against; `kept`, 0 to 1, is what it takes of the
    frames."""

    backend: str
    state: str
    viewers: int
    kept: float
    size: list[int] | None
    fps: float | None


class Stream(TypedDict):
    """One stream. `backend` is the one whose picture is shown now; `latency_ms` is by stage.

    `target`: null for the backend's own size; `output` has the one that goes out.
    """

    name: str
    state: StreamState
    reason: str
    degraded: bool
    backend: str
    policy: str
    target: Target | None
    settings: StreamSettings
    publisher: Publisher | None
    output: StreamOutput
    latency_ms: dict[str, Quantiles]
    frames: FrameCounts
    viewers: int
    compare: list[Comparison]


class Streams(TypedDict):
    """All open streams that the token is for."""

    streams: list[Stream]


class Slots(TypedDict):
    """How many streams of 512x512 at 25 fps it can hold, and as how many it holds now."""

    total: int
    used: int


class Worker(TypedDict):
    """One worker of a backend, in another process or on another machine."""

    name: str
    address: str
    state: str
    reason: str
    device: str
    fps: float | None
    slots: Slots
    rtt_ms: float | None
    restarts: int


class Plan(TypedDict):
    """What this machine can afford for a 512x512 frame, in CPU ms, and what was chosen for it."""

    words: str
    picture: str
    frame_ms: float
    budget_ms: float
    cores: int
    threads: int


class MissingWeights(TypedDict):
    """Files that a backend lacks, and the command that fetches them; `bytes` as far as is known.

    `error`: why the last download failed, empty if none did.
    """

    missing: list[str]
    bytes: int
    command: str
    may_download: bool
    error: str


class Download(TypedDict):
    """Bytes that are here, and in all if that is known."""

    bytes: int
    total: int | None


class Backend(TypedDict):
    """A configured backend: what it can do now, and why not."""

    name: str
    upscaler: str
    device: str
    state: BackendState
    reason: str
    fps: float | None
    slots: Slots
    workers: list[Worker]
    plan: Plan | None
    settings: dict[str, str | None]
    weights: MissingWeights | None
    download: Download | None


class Backends(TypedDict):
    """The configured backends."""

    backends: list[Backend]


class Source(TypedDict):
    """Where a stream is fetched from and how that goes; which of the last fields are there depends
    on `kind`."""

    stream: str
    kind: str
    state: PullState
    reason: str
    connections: int
    jumps: int
    url: NotRequired[str]
    loop: NotRequired[bool]
    video: NotRequired[str | None]
    sound: NotRequired[str | None]
    stream_id: NotRequired[str]
    pipeline: NotRequired[str]
    parameters: NotRequired[dict[str, Any]]


class PushOutput(TypedDict):
    """A push to another server; `frames_skipped`: what that did not take in time."""

    id: str
    type: Literal["whip", "rtmp", "rtsp"]
    url: str
    state: str
    reason: str
    connections: int
    bytes_sent: int
    frames_skipped: int


class CameraOutput(TypedDict):
    """A camera device of the service's machine."""

    id: str
    type: Literal["v4l2"]
    device: str
    state: str
    reason: str
    connections: int
    frames_written: int
    frames_skipped: int


class FileOutput(TypedDict):
    """A recording."""

    id: str
    type: Literal["file"]
    files: list[str]
    state: str
    reason: str
    bytes_written: int


Output = PushOutput | CameraOutput | FileOutput


class Outputs(TypedDict):
    """Where a stream goes beside its viewers."""

    outputs: list[Output]


class File(TypedDict):
    """A file that is upscaled: `pictures` of `total`, `fps` pictures a second."""

    id: str
    name: str
    state: JobState
    reason: str
    pictures: int
    total: int | None
    fps: float
    bytes: int | None
    result: str
    warnings: list[str]


class Files(TypedDict):
    """All files that are here, oldest first."""

    files: list[File]


class FilesDoor(TypedDict):
    """What may be uploaded."""

    largest_bytes: int
    upscalers: list[str]


class About(TypedDict):
    """Doors that are open, and what the control token may do here."""

    version: str
    tokens: bool
    links: bool
    rtsp_port: int | None
    weights_download: bool
    files: FilesDoor | None


class Link(TypedDict):
    """A link that expires; `expires` is Unix time in seconds."""

    id: str
    url: str
    expires: int


class Session(TypedDict):
    """One WebRTC session; `rtp_origin` is the RTP timestamp of time 0 of the stream."""

    id: str
    role: Role
    stream: str
    state: str
    codec: Codec | None
    rtp_origin: int | None
    bitrate_bps: int
    packets_lost: int


class Health(TypedDict):
    """The process is alive."""

    status: str
    version: str


class Readiness(TypedDict):
    """Whether new streams can be taken; `backends` are those that are not ready, with the reason.

    `placement`: what is in the way of new workers, if anything is, for those with a token.
    """

    ready: bool
    reasons: list[str]
    backends: dict[str, str]
    placement: NotRequired[str]


# Its keys are words of Python.
Event = TypedDict(
    "Event",
    {
        "seq": int,
        "time": float,
        "stream": str,
        "from": str | None,
        "to": str | None,
        "gap_ms": float | None,
        "reason": str,
    },
)
"""The data of one server-sent event; its name is an `EventKind`."""


class Problem(TypedDict):
    """Problem details (RFC 9457), with what was found and what was expected."""

    type: str
    title: str
    status: int
    detail: str
    found: NotRequired[Any]
    expected: NotRequired[Any]
