"""What the service answers with, as values. Times are in the units of their names.

A service that is newer than this client may use words that are not listed here, and fields, which
are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "About",
    "Backend",
    "Codec",
    "Comparison",
    "Download",
    "Event",
    "EventKind",
    "File",
    "FilesDoor",
    "FrameCounts",
    "Health",
    "Link",
    "MissingWeights",
    "Output",
    "Plan",
    "Publisher",
    "Quantiles",
    "Readiness",
    "Rendition",
    "Session",
    "Slots",
    "Source",
    "Stream",
    "StreamOutput",
    "StreamSettings",
    "Target",
    "Worker",
]

Codec = Literal["h264", "vp8"]
StreamState = Literal["waiting", "starting", "live", "switching", "draining", "closed"]
BackendState = Literal["ready", "loading", "unavailable", "quarantined"]
PullState = Literal["connecting", "live", "waiting", "failed", "closed"]
EventKind = Literal[
    "stream.state",
    "backend.state",
    "switch.started",
    "switched",
    "switch.aborted",
    "policy.step",
    "fault",
    "publisher.gone",
    "publisher.back",
    "weights",
    "compare.started",
    "compare.ended",
]


@dataclass(frozen=True, slots=True)
class Publisher:
    """What comes in; `size` is width and height, `fps` is measured."""

    codec: Codec | None
    size: tuple[int, int]
    fps: float | None


@dataclass(frozen=True, slots=True)
class Rendition:
    """One way in which the output is encoded now."""

    codec: Codec
    bitrate_bps: int
    profile: str


@dataclass(frozen=True, slots=True)
class StreamOutput:
    """What goes out; None while no picture has gone out for three seconds."""

    size: tuple[int, int] | None
    fps: float | None
    bitrate_bps: int | None
    renditions: tuple[Rendition, ...]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Median and 95th percentile, in milliseconds."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """Frames since the stream was opened; `dropped` by reason."""

    received: int
    decoded: int
    upscaled: int
    encoded: int
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Target:
    """The size that is wanted: `scale`, 1 to 4, of the publisher's sides, or `size`, width and
    height, with `fit` for another aspect."""

    scale: float | None = None
    size: tuple[int, int] | None = None
    fit: Literal["contain", "cover", "stretch"] | None = None


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What can be changed of a stream; `stabilise` None leaves it to the backend."""

    bitrate_bps: int
    stabilise: Literal["off", "lite", "strong"] | None
    idle: Literal["run", "pause"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A backend that the shown picture is held against; `kept`, 0 to 1, is what it takes of the
    frames."""

    backend: str
    state: str
    viewers: int
    kept: float
    size: tuple[int, int] | None
    fps: float | None


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream. `backend` is the one whose picture is shown now; `latency_ms` is by stage.

    `target`: None for the backend's own size; `output` has the one that goes out.
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
    latency_ms: Mapping[str, Quantiles]
    frames: FrameCounts
    viewers: int
    compare: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True)
class Slots:
    """How many streams of 512x512 at 25 fps it can hold, and as how many it holds now."""

    total: int
    used: int


@dataclass(frozen=True, slots=True)
class Worker:
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


@dataclass(frozen=True, slots=True)
class Plan:
    """What the machine can afford for a 512x512 frame, in CPU ms, and what was chosen for it."""

    words: str
    picture: str
    frame_ms: float
    budget_ms: float
    cores: int
    threads: int


@dataclass(frozen=True, slots=True)
class MissingWeights:
    """Files that a backend lacks, and the command that fetches them; `bytes` as far as is known.

    `error`: why the last download failed, empty if none did.
    """

    missing: tuple[str, ...]
    bytes: int
    command: str
    may_download: bool
    error: str


@dataclass(frozen=True, slots=True)
class Download:
    """Bytes that are here, and in all if that is known."""

    bytes: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Backend:
    """A configured backend: what it can do now, and why not."""

    name: str
    upscaler: str
    device: str
    state: BackendState
    reason: str
    fps: float | None
    slots: Slots
    workers: tuple[Worker, ...]
    plan: Plan | None
    settings: Mapping[str, str | None]
    weights: MissingWeights | None
    download: Download | None


@dataclass(frozen=True, slots=True)
class Source:
    """Where a stream is fetched from and how that goes. The last fields depend on `kind`."""

    stream: str
    kind: str
    state: PullState
    reason: str
    connections: int
    jumps: int
    url: str | None = None
    loop: bool | None = None
    video: str | None = None
    sound: str | None = None
    stream_id: str | None = None
    pipeline: str | None = None
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """Where a stream goes beside its viewers. Which of the last fields are there depends on
    `type`."""

    id: str
    type: Literal["whip", "rtmp", "rtsp", "v4l2", "file"]
    state: str
    reason: str
    url: str | None = None
    connections: int | None = None
    bytes_sent: int | None = None
    frames_skipped: int | None = None
    device: str | None = None
    frames_written: int | None = None
    files: tuple[str, ...] | None = None
    bytes_written: int | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A file that is upscaled: `pictures` of `total`, `fps` pictures a second; `result` is the name
    of what comes of it, `bytes` its size."""

    id: str
    name: str
    state: Literal["waiting", "working", "done", "failed"]
    reason: str
    pictures: int
    total: int | None
    fps: float
    bytes: int | None
    result: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FilesDoor:
    """What may be uploaded."""

    largest_bytes: int
    upscalers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class About:
    """Doors that are open, and what the control token may do; None: not open."""

    version: str
    tokens: bool
    links: bool
    rtsp_port: int | None
    weights_download: bool
    files: FilesDoor | None


@dataclass(frozen=True, slots=True)
class Link:
    """A link that expires; `expires` is Unix time in seconds. The token is in the fragment."""

    id: str
    url: str
    expires: int


@dataclass(frozen=True, slots=True)
class Session:
    """One WebRTC session; `rtp_origin` is the RTP timestamp of time 0 of the stream."""

    id: str
    role: Literal["publish", "view"]
    stream: str
    state: str
    codec: Codec | None
    rtp_origin: int | None
    bitrate_bps: int
    packets_lost: int


@dataclass(frozen=True, slots=True)
class Health:
    """The process is alive."""

    status: str
    version: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether new streams can be taken; `backends` are those that are not ready, and why."""

    ready: bool
    reasons: tuple[str, ...]
    backends: Mapping[str, str]
    placement: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `before` and `after` are states for `stream.state` and
    `backend.state`, backends otherwise; `stream` is empty for events of a backend. `time` is Unix
    time in seconds."""

    kind: EventKind
    seq: int
    time: float
    stream: str
    before: str | None = field(metadata={"json": "from"})
    after: str | None = field(metadata={"json": "to"})
    gap_ms: float | None
    reason: str
