"""What the control API tells of a stream: the Stream object of `GET /api/v1/streams`, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamlift.frames import Codec, Rendition, Size, Target
from streamlift.routing.settings import StreamSettings
from streamlift.routing.states import StreamState

__all__ = [
    "CompareSnapshot",
    "FrameCounts",
    "LatencySnapshot",
    "OutputSnapshot",
    "PublisherSnapshot",
    "StreamSnapshot",
]


@dataclass(frozen=True, slots=True)
class PublisherSnapshot:
    """What comes in; `fps` is measured from pts, `codec` None if frames carry no access units."""

    codec: Codec | None
    size: Size
    fps: float | None


@dataclass(frozen=True, slots=True)
class OutputSnapshot:
    """What goes out in the default rendition, and all renditions now encoded."""

    size: Size | None
    fps: float | None
    bitrate_bps: float | None
    renditions: tuple[Rendition, ...]


@dataclass(frozen=True, slots=True)
class LatencySnapshot:
    """Median and 95th percentile of one stage, in milliseconds."""

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
class CompareSnapshot:
    """A backend whose picture is compared with the shown one. `state`: `opening`, `live`, or
    `left_out` while it takes only a part (`kept`, 0 to 1) of the frames, for the stream's own sake.
    """

    backend: str
    state: str
    viewers: int
    kept: float
    size: Size | None
    fps: float | None


@dataclass(frozen=True, slots=True)
class StreamSnapshot:
    """One stream at one moment. Stages: decode, queue, upscale, encode, send, total.

    `backend` is the one whose picture is shown now; `send` is the time between the encoder and
    the viewers' sessions, pacing included. `target`: the size that is wanted, None for the
    backend's own; `output` has the one that goes out.
    """

    name: str
    state: StreamState
    reason: str
    degraded: bool
    backend: str
    policy: str
    target: Target | None
    settings: StreamSettings
    publisher: PublisherSnapshot | None
    output: OutputSnapshot
    latency_ms: Mapping[str, LatencySnapshot]
    frames: FrameCounts
    viewers: int
    compare: tuple[CompareSnapshot, ...] = ()
