"""Messages to our values and back, and the sizes that each kind of message may have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from streamlift.cluster.wire import worker_pb2 as pb
from streamlift.engine import EngineBackend
from streamlift.errors import (
    BackendError,
    InvalidOutput,
    MediaError,
    NoCapacity,
    NotReady,
    OutOfMemory,
    StreamliftError,
    UpscaleError,
    UpscalerHung,
    WorkerDraining,
    WorkerLost,
)
from streamlift.frames import (
    BackendState,
    Codec,
    CodedVideo,
    Colour,
    EncodedFrame,
    Fit,
    Frame,
    LaneOptions,
    Planes,
    Rendition,
    Size,
    Stabilise,
    StageTimes,
    Target,
)

__all__ = [
    "ANCHOR_RECEIVES",
    "HELLO_BYTES",
    "OLDEST",
    "PROTOCOL",
    "WORKER_RECEIVES",
    "check_size",
    "common_version",
    "denied_message",
    "encoded_frame",
    "encoded_message",
    "ended_message",
    "error_of",
    "lane_options",
    "open_message",
    "picture_bytes",
    "picture_frame",
    "refusal_of",
    "renditions",
    "renditions_message",
    "status_message",
    "unit_message",
    "unit_video",
]

PROTOCOL, OLDEST = 1, 1
"""The versions of the wire that this software speaks."""
HELLO_BYTES = 4 * 1024
CONTROL_BYTES = 64 * 1024
UNIT_BYTES = 1024 * 1024
WORKER_RECEIVES = 5 * 512 * 1024
"""A picture of 1280x1280 in I420 is 2.46 million bytes."""
ANCHOR_RECEIVES = 4 * 1024 * 1024
_MOST_RENDITIONS = 16
_KINDS: dict[str, type[StreamliftError]] = {
    "nan": InvalidOutput,
    "oom": OutOfMemory,
    "hang": UpscalerHung,
    "unsupported": MediaError,
    "lost": WorkerLost,
    "draining": WorkerDraining,
}
_DENIALS: dict[str, type[StreamliftError]] = {"no_capacity": NoCapacity, "unsupported": MediaError}


def common_version(
    protocol: int, oldest: int, own: int = PROTOCOL, own_oldest: int = OLDEST
) -> int:
    """The newest version that both ends speak; 0 if there is none."""
    newest = min(protocol, own)
    return newest if newest >= max(oldest, own_oldest) else 0


def check_size(message: pb.ToLane, size: int) -> None:
    """Raises MediaError for a message of `size` bytes that is larger than its kind may be."""
    kind = message.WhichOneof("kind")
    most = {"unit": UNIT_BYTES, "picture": WORKER_RECEIVES}.get(kind or "", CONTROL_BYTES)
    if size > most:
        raise MediaError(f"{kind} of {size} bytes", found=size, expected=f"at most {most}")


# ---- what a lane is opened with ----


def _rendition_message(rendition: Rendition) -> pb.Rendition:
    return pb.Rendition(
        codec=rendition.codec,
        bitrate_bps=rendition.bitrate_bps,
        profile=rendition.profile,
        thin=rendition.thin,
        target=None if rendition.target is None else _target_message(rendition.target),
    )


def _rendition(message: pb.Rendition) -> Rendition:
    target = _target(message.target) if message.HasField("target") else None
    return Rendition(
        _codec(message.codec), message.bitrate_bps, message.profile, message.thin, target
    )


def _target_message(target: Target) -> pb.Target:
    if target.size is None:
        return pb.Target(scale=target.scale)
    return pb.Target(width=target.size.width, height=target.size.height, fit=target.fit)


def _target(message: pb.Target) -> Target:
    """Raises MediaError for one that we do not know."""
    if not message.width:
        return Target(scale=message.scale)
    try:
        fit = Fit(message.fit)
    except ValueError as error:
        raise MediaError(f"unknown fit {message.fit!r:.40}", expected=[*Fit]) from error
    return Target(size=Size(message.width, message.height), fit=fit)


def renditions(messages: Iterable[pb.Rendition]) -> frozenset[Rendition]:
    """Raises MediaError for an unknown codec or target, or too many."""
    found = frozenset(_rendition(m) for m in messages)
    if len(found) > _MOST_RENDITIONS:
        raise MediaError("too many renditions", found=len(found), expected=_MOST_RENDITIONS)
    return found


def renditions_message(wanted: Iterable[Rendition]) -> pb.Renditions:
    return pb.Renditions(list=[_rendition_message(r) for r in wanted])


def open_message(size: Size, options: LaneOptions) -> pb.Open:
    return pb.Open(
        width=size.width,
        height=size.height,
        renditions=[_rendition_message(r) for r in options.renditions],
        stabilise=options.stabilise,
        stream=options.stream,
        fps=options.fps,
        stands_in=options.stands_in,
        guest=options.guest,
    )


def lane_options(message: pb.Open) -> LaneOptions:
    """Raises MediaError for values that we do not know."""
    try:
        stabilise = Stabilise(message.stabilise) if message.HasField("stabilise") else None
    except ValueError as error:
        raise MediaError(f"unknown stabiliser {message.stabilise!r:.40}") from error
    return LaneOptions(
        renditions=renditions(message.renditions),
        stabilise=stabilise,
        stream=message.stream[:64],
        fps=message.fps if message.HasField("fps") and 0 < message.fps <= 1000 else None,
        stands_in=message.stands_in,
        guest=message.guest,
    )


# ---- pictures ----


def unit_message(frame: Frame, coded: CodedVideo, age_s: float) -> pb.Unit:
    return pb.Unit(
        pts=frame.pts,
        age_s=age_s,
        number=coded.number,
        codec=coded.codec,
        keyframe=coded.keyframe,
        data=coded.data,
    )


def unit_video(message: pb.Unit) -> CodedVideo:
    """Raises MediaError for an unknown codec."""
    return CodedVideo(_codec(message.codec), message.data, message.keyframe, message.number)


def picture_bytes(frame: Frame, age_s: float) -> bytes:
    """A serialized `ToLane` with a picture. Its pixels are copied once.

    The generated code copies them four times on the way, so they are put behind the other fields
    here: serialized messages may be joined
    (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
    """
    fields = pb.Picture(
        pts=frame.pts,
        age_s=age_s,
        width=frame.size.width,
        height=frame.size.height,
        matrix=frame.colour.matrix,
        full_range=frame.colour.full_range,
        decode_s=frame.decode_s,
    ).SerializeToString()
    planes = [np.ascontiguousarray(plane).reshape(-1) for plane in frame.planes.each()]
    data = _DATA + _varint(sum(plane.nbytes for plane in planes))
    size = len(fields) + len(data) + sum(plane.nbytes for plane in planes)
    return b"".join((_PICTURE, _varint(size), fields, data, *(plane.data for plane in planes)))


def _key(message: Any, field: str) -> bytes:
    """What stands before a field whose length is told."""
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | 2)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_PICTURE, _DATA = _key(pb.ToLane, "picture"), _key(pb.Picture, "data")


def picture_frame(message: pb.Picture, now_s: float, max_side: int) -> Frame:
    """The frame, its planes views of the message's bytes. Raises MediaError if they do not fit."""
    width, height = message.width, message.height
    chroma_width, chroma_height = (width + 1) // 2, (height + 1) // 2
    luma, chroma = width * height, chroma_width * chroma_height
    if not (0 < width <= max_side and 0 < height <= max_side):
        raise MediaError(f"a picture of {width}x{height}", expected=f"at most {max_side} a side")
    if len(message.data) != luma + 2 * chroma:
        raise MediaError(
            f"a picture of {width}x{height} in {len(message.data)} bytes",
            found=len(message.data),
            expected=luma + 2 * chroma,
        )
    flat = np.frombuffer(message.data, np.uint8)
    planes = Planes(
        flat[:luma].reshape(height, width),
        flat[luma : luma + chroma].reshape(chroma_height, chroma_width),
        flat[luma + chroma :].reshape(chroma_height, chroma_width),
    )
    colour = Colour("bt709" if message.matrix == "bt709" else "bt601", message.full_range)
    return Frame(
        pts=message.pts,
        size=planes.size,
        planes=planes,
        colour=colour,
        arrived_s=now_s - message.age_s,
        decode_s=message.decode_s,
    )


def encoded_message(encoded: EncodedFrame, held_s: float = 0.0) -> pb.Encoded:
    return pb.Encoded(
        pts=encoded.pts,
        rendition=_rendition_message(encoded.rendition),
        keyframe=encoded.keyframe,
        width=encoded.size.width,
        height=encoded.size.height,
        queue_s=encoded.stages.queue_s,
        upscale_s=encoded.stages.upscale_s,
        encode_s=encoded.stages.encode_s,
        data=encoded.data,
        held_s=held_s,
    )


def encoded_frame(message: pb.Encoded, arrived_s: float, decode_s: float) -> EncodedFrame:
    """With the times of the anchor's own clock. Raises MediaError for an unknown codec."""
    return EncodedFrame(
        pts=message.pts,
        size=Size(message.width, message.height),
        rendition=_rendition(message.rendition),
        keyframe=message.keyframe,
        data=message.data,
        arrived_s=arrived_s,
        stages=StageTimes(decode_s, message.queue_s, message.upscale_s, message.encode_s),
    )


def _codec(name: str) -> Codec:
    try:
        return Codec(name)
    except ValueError as error:
        raise MediaError(f"unknown codec {name!r:.40}", expected=[*Codec]) from error


# ---- faults and states ----


def ended_message(error: BaseException | None) -> pb.Ended:
    """Kind and text; never an exception object."""
    if error is None:
        return pb.Ended()
    kind = next((k for k, cls in _KINDS.items() if isinstance(error, cls)), "raise")
    if isinstance(error, MemoryError):
        kind = "oom"
    if isinstance(error, TimeoutError):
        kind = "hang"
    return pb.Ended(kind=kind, text=str(error)[:1000] or repr(error)[:1000])


def error_of(message: pb.Ended) -> StreamliftError | None:
    """The error of a lane's last message; None for one that delivered all it owed."""
    if not message.kind:
        return None
    return _KINDS.get(message.kind, UpscaleError)(message.text or message.kind)


def refusal_of(message: pb.Denied) -> StreamliftError:
    """Why a lane was not opened."""
    return _DENIALS.get(message.reason, NotReady)(message.text or message.reason)


def denied_message(error: StreamliftError) -> pb.Denied:
    reason = "unsupported" if not isinstance(error, BackendError) else "not_ready"
    if isinstance(error, NoCapacity):
        reason = "no_capacity"
    return pb.Denied(reason=reason, text=str(error)[:1000])


def status_message(backend: EngineBackend, *, label: str | None, draining: bool) -> pb.Status:
    """How the worker's backend is now; `label`: what to call its device."""
    info = backend.info()
    ready = info.state is BackendState.READY
    return pb.Status(
        state="draining" if draining and ready else info.state,
        reason="draining" if draining and ready else info.reason[:1000],
        device=label or info.device,
        fps=info.fps,
        slots_total=info.slots.total,
        slots_used=info.slots.used,
    )
