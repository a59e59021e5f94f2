"""What the child tells its parent, message by message; nothing of it is believed unchecked.

The child reads what strangers made, so it may be in their hands. What it says is of bounded length,
is parsed by fixed shapes, and can hold nothing but pictures, sound, numbers and a line of text.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np

from streamlift.errors import MediaError
from streamlift.frames import Codec, CodedVideo, Colour, IngestCounts, Motion, Planes

__all__ = [
    "HEADER",
    "MOTION",
    "Buffer",
    "Kind",
    "Shown",
    "Why",
    "most_bytes",
    "read_counts",
    "read_picture",
    "read_reason",
    "read_sound",
    "write_counts",
    "write_picture",
    "write_reason",
    "write_sound",
]

Buffer = bytes | memoryview

HEADER = struct.Struct("<BI")
"""Kind, and length of what follows."""
_PICTURE = struct.Struct("<qHHBBIBBIIqI")
"""pts, width, height, matrix, full range, decoding in microseconds; codec, keyframe, number and
length of the access unit; pts that the motion follows, and its length. Then these two, y, u, v."""
_SOUND = struct.Struct("<q")
_COUNTS = struct.Struct("<5Q")
_CODECS: tuple[Codec | None, ...] = (None, Codec.H264, Codec.VP8)
_MATRICES = ("bt601", "bt709")
_DROPPED = ("decode_error", "unsupported_size", "stale")
_MOST_UNIT = 8 << 20
_MOST_MOTION = 8 << 20
_MOST_SOUND = 8 << 10
_MOST_TEXT = 2000
_MOST_DECODE_S = 10.0

MOTION = np.dtype(
    [
        ("source", "int32"),
        ("w", "uint8"),
        ("h", "uint8"),
        ("src_x", "int16"),
        ("src_y", "int16"),
        ("dst_x", "int16"),
        ("dst_y", "int16"),
        ("flags", "uint64"),
        ("motion_x", "int32"),
        ("motion_y", "int32"),
        ("motion_scale", "uint16"),
    ],
    align=True,
)
"""AVMotionVector of libavutil/motion_vector.h, as PyAV gives it."""


class Kind(IntEnum):
    """Of a message. BEAT: something has come in. DOING: what it waits for, as text. OPENED: what
    was found, two words (video and sound). ERROR: a `Why` and a text, the last message."""

    BEAT = 0
    DOING = 1
    OPENED = 2
    PICTURE = 3
    SOUND = 4
    COUNTS = 5
    ERROR = 6


class Why(StrEnum):
    """How a pull ended. refused: for good. ended: all is shown. lost: worth another try."""

    REFUSED = "r"
    ENDED = "e"
    LOST = "l"


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A decoded picture; pts at 90 kHz on the child's own line."""

    pts: int
    planes: Planes
    colour: Colour
    decode_s: float
    coded: CodedVideo | None = None
    motion: Motion | None = None


def most_bytes(kind: Kind, max_side: int) -> int:
    """How long a message of that kind may be."""
    if kind is Kind.PICTURE:
        return _PICTURE.size + _MOST_UNIT + _MOST_MOTION + 2 * max_side * max_side
    return {Kind.BEAT: 0, Kind.COUNTS: _COUNTS.size, Kind.SOUND: _SOUND.size + _MOST_SOUND}.get(
        kind, _MOST_TEXT
    )


def write_picture(shown: Shown) -> list[Buffer]:
    """The parts of the message, so that no picture is copied to be sent."""
    coded, motion = shown.coded, shown.motion
    unit = b"" if coded is None or len(coded.data) > _MOST_UNIT else coded.data
    vectors = b"" if motion is None else motion.vectors.tobytes()
    if motion is not None and (motion.vectors.dtype != MOTION or len(vectors) > _MOST_MOTION):
        vectors = b""
    size = shown.planes.size
    head = _PICTURE.pack(
        shown.pts,
        size.width,
        size.height,
        _MATRICES.index(shown.colour.matrix),
        shown.colour.full_range,
        min(round(shown.decode_s * 1e6), 0xFFFFFFFF),
        _CODECS.index(coded.codec) if coded is not None and unit else 0,
        coded is not None and coded.keyframe,
        0 if coded is None else coded.number & 0xFFFFFFFF,
        len(unit),
        0 if motion is None else motion.follows,
        len(vectors),
    )
    planes = (np.ascontiguousarray(plane).reshape(-1).data for plane in shown.planes.each())
    return _message(Kind.PICTURE, [head, unit, vectors, *planes])


def read_picture(data: np.ndarray, max_side: int) -> Shown:
    """Views into `data`, one-dimensional uint8. Raises MediaError for what is not consistent."""
    if len(data) < _PICTURE.size:
        raise _broken("a picture", len(data))
    fields = _PICTURE.unpack_from(data.data)
    pts, width, height, matrix, full_range, decode_us, codec, keyframe = fields[:8]
    number, unit_bytes, follows, motion_bytes = fields[8:]
    luma, half = width * height, ((height + 1) // 2, (width + 1) // 2)
    chroma = half[0] * half[1]
    at = _PICTURE.size
    if (
        not 0 < width <= max_side
        or not 0 < height <= max_side
        or matrix >= len(_MATRICES)
        or codec >= len(_CODECS)
        or motion_bytes % MOTION.itemsize
        or len(data) != at + unit_bytes + motion_bytes + luma + 2 * chroma
    ):
        raise _broken("a picture", (width, height, len(data)))
    unit = data[at : at + unit_bytes].tobytes()
    at += unit_bytes
    vectors = data[at : at + motion_bytes]
    at += motion_bytes
    y = data[at : at + luma].reshape(height, width)
    u = data[at + luma : at + luma + chroma].reshape(half)
    v = data[at + luma + chroma :].reshape(half)
    of_unit = _CODECS[codec]
    return Shown(
        pts,
        Planes(y, u, v),
        Colour(_MATRICES[matrix], bool(full_range)),
        min(decode_us / 1e6, _MOST_DECODE_S),
        None if of_unit is None else CodedVideo(of_unit, unit, bool(keyframe), number),
        Motion(np.frombuffer(vectors.tobytes(), MOTION), follows) if motion_bytes else None,
    )


def write_sound(pts: int, opus: bytes) -> list[Buffer]:
    """`pts` at 48 kHz."""
    return _message(Kind.SOUND, [_SOUND.pack(pts), opus])


def read_sound(data: bytes) -> tuple[int, bytes]:
    """pts at 48 kHz and the Opus packet. Raises MediaError."""
    if len(data) <= _SOUND.size:
        raise _broken("sound", len(data))
    return _SOUND.unpack_from(data)[0], data[_SOUND.size :]


def write_counts(counts: IngestCounts) -> list[Buffer]:
    dropped = (counts.dropped.get(reason, 0) for reason in _DROPPED)
    return _message(Kind.COUNTS, [_COUNTS.pack(counts.received, counts.decoded, *dropped)])


def read_counts(data: bytes) -> IngestCounts:
    """Raises MediaError."""
    if len(data) != _COUNTS.size:
        raise _broken("counts", len(data))
    received, decoded, *dropped = _COUNTS.unpack(data)
    by_reason = dict(zip(_DROPPED, dropped, strict=True))
    return IngestCounts(received, decoded, {r: n for r, n in by_reason.items() if n})


def write_reason(kind: Kind, text: str) -> list[Buffer]:
    """A message that is a text: for ERROR, a `Why` and then the words."""
    return _message(kind, [text.encode("utf-8", "replace")[:_MOST_TEXT]])


def read_reason(data: bytes) -> str:
    """One line, without what a terminal or a log could take for more."""
    text = data.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text)


def _message(kind: Kind, parts: Sequence[Buffer]) -> list[Buffer]:
    length = sum(len(part) for part in parts)
    return [HEADER.pack(kind, length), *(part for part in parts if len(part))]


def _broken(what: str, found: object) -> MediaError:
    return MediaError(f"the child sent {what} that cannot be", found=found)
