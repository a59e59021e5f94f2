"""Animated WebP: its frames taken apart and laid over each other, and put together again."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from streamlift.errors import MediaError
from streamlift.frames import Size
from streamlift.offline.steps import shown, step
from streamlift.offline.stills import Pixels, size_of

__all__ = ["Moment", "Timing", "WebpSink", "opaque", "webp_frames", "webp_timing"]


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """One frame: RGBA pixels (H, W, 4), and for how long it is shown."""

    pixels: Pixels
    duration_s: Fraction


@dataclass(frozen=True, slots=True)
class Timing:
    """What is known before the first frame: how many, the last's duration, plays (0 endless)."""

    frames: int
    last_s: Fraction
    plays: int


def webp_timing(path: Path) -> Timing:
    """Raises MediaError."""
    data = _read(path)
    durations = [_duration(body) for name, body in _chunks(data) if name == b"ANMF"]
    plays = [
        struct.unpack_from("<H", body, 4)[0] for name, body in _chunks(data) if name == b"ANIM"
    ]
    return Timing(len(durations), Fraction((durations or [0])[-1], 1000), (plays or [0])[0])


def webp_frames(path: Path) -> Iterator[Moment]:
    """Whole frames, RGBA; damaged ones end it. Raises MediaError."""
    data = _read(path)
    canvas: Pixels | None = None
    try:
        for name, body in _chunks(data):
            if name == b"VP8X":
                width, height = _from_u24(body, 4) + 1, _from_u24(body, 7) + 1
                canvas = np.zeros((height, width, 4), np.uint8)
            if name != b"ANMF" or canvas is None:
                continue
            frame = _decoded(body[16:], Size(_from_u24(body, 6) + 1, _from_u24(body, 9) + 1))
            x, y = 2 * _from_u24(body, 0), 2 * _from_u24(body, 3)
            place = canvas[y : y + frame.shape[0], x : x + frame.shape[1]]
            replaces, disposes = body[15] & 2, body[15] & 1
            place[:] = frame if replaces else _over(frame, place)
            yield Moment(canvas.copy(), Fraction(_duration(body), 1000))
            if disposes:
                place[:] = 0
    except (struct.error, IndexError, ValueError, cv2.error) as error:
        raise MediaError(
            f"reading {shown(path)}: the animation is damaged or cut off", found=str(path)
        ) from error


class WebpSink:
    """Animated WebP: each frame a whole picture in a frame chunk of its own."""

    def __init__(self, part: Path, target: Path, size: Size, plays: int) -> None:
        self._target, self._size = target, size
        self._file = part.open("wb")
        flags = 0x12  # animation, alpha
        head = struct.pack("<B3x", flags) + _u24(size.width - 1) + _u24(size.height - 1)
        self._file.write(b"RIFF\0\0\0\0WEBP" + _chunk(b"VP8X", head))
        self._file.write(_chunk(b"ANIM", struct.pack("<IH", 0, plays)))

    def add(self, pixels: Pixels, duration_s: Fraction) -> None:
        rgba = pixels if pixels.shape[2] == 4 else opaque(pixels)
        done, coded = cv2.imencode(
            ".webp", np.ascontiguousarray(rgba[..., (2, 1, 0, 3)]), [cv2.IMWRITE_WEBP_QUALITY, 95]
        )
        if not done:
            raise MediaError(f"encoding {shown(self._target)}: a frame of {self._size} failed")
        duration = _u24(min(0xFFFFFF, round(duration_s * 1000)))
        place = _u24(0) + _u24(0) + _u24(self._size.width - 1) + _u24(self._size.height - 1)
        # 2: the frame replaces what was there instead of being laid over it.
        body = place + duration + b"\x02" + _picture_chunks(coded.tobytes())
        with step("writing", self._target):
            self._file.write(_chunk(b"ANMF", body))

    def finish(self) -> None:
        with step("writing", self._target):
            length = self._file.tell()
            self._file.seek(4)
            self._file.write(struct.pack("<I", length - 8))
            self._file.close()

    def close(self) -> None:
        self._file.close()


def opaque(rgb: Pixels) -> Pixels:
    """RGBA of grey or RGB."""
    size = size_of(rgb)
    if rgb.shape[2] == 1:
        rgb = rgb.repeat(3, axis=2)
    most = np.iinfo(rgb.dtype).max
    return np.concatenate((rgb, np.full((size.height, size.width, 1), most, rgb.dtype)), axis=2)


def _read(path: Path) -> bytes:
    with step("reading", path):
        return path.read_bytes()


def _chunks(data: bytes, at: int = 12) -> Iterator[tuple[bytes, bytes]]:
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        yield data[at : at + 4], data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _duration(body: bytes) -> int:
    return _from_u24(body, 12)


def _decoded(chunks: bytes, size: Size) -> Pixels:
    """One frame's chunks as a file of their own; RGBA."""
    clear = any(name in (b"ALPH", b"VP8L") for name, _ in _chunks(chunks, 0))
    head = struct.pack("<B3x", 0x10 if clear else 0)
    head += _u24(size.width - 1) + _u24(size.height - 1)
    body = b"WEBP" + _chunk(b"VP8X", head) + chunks
    file = b"RIFF" + struct.pack("<I", len(body)) + body
    found = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise ValueError("a frame does not decode")
    rgba = found[..., (2, 1, 0, 3)] if found.shape[2] == 4 else opaque(found[..., ::-1])
    return np.ascontiguousarray(rgba)


def _over(frame: Pixels, ground: Pixels) -> Pixels:
    """`frame` laid over `ground`, both RGBA."""
    above, below = frame[..., 3:] / 255, ground[..., 3:] / 255
    alpha = above + below * (1 - above)
    colour = frame[..., :3] * above + ground[..., :3] * below * (1 - above)
    colour = colour / np.maximum(alpha, 1e-6)
    whole: Pixels = np.rint(np.concatenate((colour, alpha * 255), axis=2)).astype(np.uint8)
    return whole


def _picture_chunks(file: bytes) -> bytes:
    """The chunks of a WebP file that hold its picture: ALPH, VP8 and VP8L."""
    kept, at = [], 12
    while at + 8 <= len(file):
        (length,) = struct.unpack_from("<I", file, at + 4)
        end = at + 8 + length + length % 2
        if file[at : at + 4] in (b"ALPH", b"VP8 ", b"VP8L"):
            kept.append(file[at:end])
        at = end
    return b"".join(kept)


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _u24(value: int) -> bytes:
    return struct.pack("<I", value)[:3]


def _from_u24(data: bytes, at: int) -> int:
    return data[at] | data[at + 1] << 8 | data[at + 2] << 16
