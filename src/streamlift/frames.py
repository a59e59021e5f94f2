"""The values that travel through the service: pictures, coded pictures, and what describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from streamlift.errors import MediaError
from streamlift.sizes import Fit, Size, Target

__all__ = [
    "BackendInfo",
    "BackendState",
    "Codec",
    "CodedAudio",
    "CodedVideo",
    "Colour",
    "EncodedFrame",
    "Fit",
    "Frame",
    "IngestCounts",
    "LaneOptions",
    "Motion",
    "PlanInfo",
    "Plane",
    "Planes",
    "Rendition",
    "Size",
    "Slots",
    "Stabilise",
    "StageTimes",
    "Target",
    "Unencoded",
    "WorkerInfo",
]

Plane = npt.NDArray[np.uint8]


class Codec(StrEnum):
    """Video codecs that the service speaks."""

    H264 = "h264"
    VP8 = "vp8"


class Stabilise(StrEnum):
    """Strength of the temporal stabiliser."""

    OFF = "off"
    LITE = "lite"
    STRONG = "strong"


class BackendState(StrEnum):
    """What a backend can do now."""

    READY = "ready"
    LOADING = "loading"
    UNAVAILABLE = "unavailable"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Colour:
    """Colour tags as H.264 and VP8 carry them; unspecified means BT.601, limited range."""

    matrix: str = "bt601"
    full_range: bool = False

    @property
    def black(self) -> tuple[int, int, int]:
        """Its levels in y, u and v."""
        return 0 if self.full_range else 16, 128, 128


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """One I420 picture in host memory: y (H, W), u and v (ceil(H/2), ceil(W/2)), all uint8.

    Raises MediaError when the planes do not fit together.
    """

    y: Plane
    u: Plane
    v: Plane

    def __post_init__(self) -> None:
        height, width = self.y.shape
        chroma = ((height + 1) // 2, (width + 1) // 2)
        if self.u.shape != chroma or self.v.shape != chroma:
            raise MediaError(
                "chroma planes do not fit the luma plane",
                found={"y": self.y.shape, "u": self.u.shape, "v": self.v.shape},
                expected={"u": chroma, "v": chroma},
            )

    @property
    def size(self) -> Size:
        height, width = self.y.shape
        return Size(width, height)

    def each(self) -> tuple[Plane, Plane, Plane]:
        """y, u and v."""
        return self.y, self.u, self.v


@dataclass(frozen=True, slots=True, eq=False)
class CodedVideo:
    """The publisher's own access unit: Annex B for H.264, a frame for VP8.

    `number` counts a publisher's units in decode order, as they enter the decoder: where the one
    before is missing, what follows cannot be decoded until the next keyframe. Pictures that are
    shown in another order than they are coded (B-frames) carry numbers out of order.
    """

    codec: Codec
    data: bytes
    keyframe: bool
    number: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class CodedAudio:
    """One Opus packet; pts at 48 kHz, arrival on the service's monotonic clock."""

    pts: int
    data: bytes
    arrived_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Motion vectors as the bitstream carried them, not yet ordered; see `codec.motion`.

    `vectors` is FFmpeg's AVMotionVector as a structured array; they lead from a picture to the one
    decoded before it, whose pts `follows` is. `before` is the motion of that one, if it was left
    out.
    """

    vectors: npt.NDArray[np.void]
    follows: int
    before: Motion | None = None

    def placed(self, place: Callable[[int], int]) -> Motion:
        """The same on another line of timestamps."""
        before = None if self.before is None else self.before.placed(place)
        return Motion(self.vectors, place(self.follows), before)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded low-resolution picture; pts at 90 kHz, arrival on the monotonic clock.

    `arrived_s` is when its last RTP packet came in; `decode_s` what decoding took. `motion` is
    None for keyframes and where the codec gives none. `due_s` is its place on the publisher's
    pacing line, which in a burst is later than its arrival; None where there is no such line.
    """

    pts: int
    size: Size
    planes: Planes
    colour: Colour
    arrived_s: float
    coded: CodedVideo | None = None
    decode_s: float = 0.0
    motion: Motion | None = None
    due_s: float | None = None

    @property
    def late_after_s(self) -> float:
        """From when on its waiting counts as delay."""
        return self.arrived_s if self.due_s is None else self.due_s


@dataclass(frozen=True, slots=True)
class Rendition:
    """One way to encode a stream's output.

    `thin`: the one that all viewers on a thin link share, whatever `profile` says H.264 Baseline,
    and at less than the rate (see `codec.encoded_bitrate_bps`). `target`: the size, the same in all
    renditions of a stream; None for what the backend gives by itself.
    """

    codec: Codec
    bitrate_bps: int
    profile: str = "High"
    thin: bool = False
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds one frame spent in each stage, waiting for the stage included."""

    decode_s: float = 0.0
    queue_s: float = 0.0
    upscale_s: float = 0.0
    encode_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class EncodedFrame:
    """One access unit, ready to be packetized; `arrived_s` is the low-resolution frame's."""

    pts: int
    size: Size
    rendition: Rendition
    keyframe: bool
    data: bytes
    arrived_s: float
    stages: StageTimes = StageTimes()


@dataclass(frozen=True, slots=True)
class Unencoded:
    """An upscaled picture that nobody wanted encoded: what a lane without renditions gives back."""

    pts: int


@dataclass(frozen=True, slots=True)
class IngestCounts:
    """Access units that came in complete, pictures decoded of them, and drops by reason."""

    received: int = 0
    decoded: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)


def _ask_nobody() -> None:
    """For lanes whose frames come from no publisher."""


@dataclass(frozen=True, slots=True)
class LaneOptions:
    """What a stream asks of a lane when it opens one.

    `stabilise` None means the backend's own default; `fps` is the publisher's rate, if known.
    `stands_in`: for a lane that failed; rather with few frames than not at all.
    `guest`: for a picture beside the stream's own; it takes nothing that streams' own lanes need.
    `ask_source` asks the publisher for a keyframe, merged to one in half a second; never waits.
    """

    renditions: frozenset[Rendition]
    stabilise: Stabilise | None = None
    stream: str = ""
    fps: float | None = None
    stands_in: bool = False
    guest: bool = False
    ask_source: Callable[[], None] = field(default=_ask_nobody, compare=False)


@dataclass(frozen=True, slots=True)
class Slots:
    """How many streams of 512x512 at 25 fps a backend can hold, and as how many it holds now.

    Held ones are counted by pixels a second and rounded up.
    """

    total: int
    used: int


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One worker of a backend. `state`: as BackendState, or draining; `rtt_s`: of its link.

    `restarts`, by reason: of a process of this machine; bytes: over the link, by direction (in,
    out).
    """

    name: str
    address: str
    state: str
    reason: str
    device: str
    fps: float | None
    slots: Slots
    rtt_s: float | None
    restarts: Mapping[str, int] = field(default_factory=dict)
    bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlanInfo:
    """What this machine can afford for a 512x512 frame, in CPU ms, and what was chosen for it."""

    words: str
    picture: str
    frame_ms: float
    budget_ms: float
    cores: int
    threads: int


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What `GET /api/v1/backends` tells of one backend; `fps` is its measured capacity.

    `workers`: those it has in other processes or on other machines. `plan`: what a CPU model that
    chooses by itself begins with.
    """

    name: str
    upscaler: str
    device: str
    state: BackendState
    reason: str
    fps: float | None
    slots: Slots
    workers: tuple[WorkerInfo, ...] = ()
    plan: PlanInfo | None = None

    @property
    def has_room(self) -> bool:
        """Whether a whole slot is free: what a newcomer of unknown size may need."""
        return self.slots.used < self.slots.total
