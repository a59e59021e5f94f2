"""Still pictures as files: upright, with all channels and bits, and what they carry besides."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from streamlift.errors import MediaError
from streamlift.frames import Size
from streamlift.offline.clear_colour import with_clear_colour
from streamlift.offline.description import Turn
from streamlift.offline.names import kind_of
from streamlift.offline.steps import Notes, shown, step

__all__ = [
    "Pixels",
    "Still",
    "check_still_size",
    "encode_still",
    "orientation",
    "pages_of",
    "read_still",
    "size_of",
]

Pixels = npt.NDArray[Any]
"""(H, W, C), uint8 or uint16: C 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha."""

_EXIF_ORIENTATION = 0x112
_LARGEST = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383, ".avif": 65535}
_MOST_PIXELS = 1 << 30
_DEEP = (".png", ".tif", ".tiff", ".jp2")
_CLEAR = (".png", ".webp", ".avif", ".tif", ".tiff")
_WITH_PROFILE = (".png", ".jpg", ".jpeg", ".webp")
_QUALITY = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101],  # over 100: lossless
    ".avif": [cv2.IMWRITE_AVIF_QUALITY, 90],
}
_QUALITY[".jpeg"] = _QUALITY[".jpg"]


@dataclass(frozen=True, slots=True, eq=False)
class Still:
    """One picture, upright. `profile` is its ICC profile, `exif` its TIFF block, orientation 1."""

    pixels: Pixels
    profile: bytes | None = None
    exif: bytes | None = None
    whole: bool = True

    @property
    def alpha(self) -> bool:
        return self.pixels.shape[2] in (2, 4)

    @property
    def bits(self) -> int:
        return 8 * self.pixels.dtype.itemsize

    def with_pixels(self, pixels: Pixels) -> Still:
        return replace(self, pixels=pixels)


def read_still(path: Path) -> Still:
    """Raises MediaError when there is no such picture or it cannot be decoded."""
    with step("reading", path):
        data = path.read_bytes()
    found, kinds, blocks = _decode(data)
    if found is None:
        if not data:
            reason = "the file is empty"
        elif kind_of(data[:256]):
            reason = "the picture is damaged or cut off"
        else:
            reason = "it is no picture of a known form"
        raise MediaError(f"reading {shown(path)}: {reason}", found=str(path))
    if found.dtype not in (np.uint8, np.uint16):
        raise MediaError(
            f"reading {shown(path)}: found samples of {found.dtype}, expected 8 or 16 bits",
            found=str(found.dtype),
        )
    carried = {
        int(kind): bytes(np.asarray(b).ravel()) for kind, b in zip(kinds, blocks, strict=False)
    }
    exif = carried.get(cv2.IMAGE_METADATA_EXIF)
    profile = carried.get(cv2.IMAGE_METADATA_ICCP)
    pixels = _rgb(found if found.ndim == 3 else found[..., None])
    kind = kind_of(data[:256])
    if kind == "png":
        pixels = with_clear_colour(pixels, data)
    if exif and kind != "tiff":  # OpenCV turns TIFF itself
        pixels = Turn.of_orientation(orientation(exif)).apply(pixels)
        exif = _set_upright(exif)
    return Still(np.ascontiguousarray(pixels), profile, exif, _is_whole(kind, data))


def encode_still(still: Still, path: Path, notes: Notes) -> bytes:
    """The file for that name. What its form cannot hold is said in `notes`. Raises MediaError."""
    suffix = path.suffix.lower()
    pixels = still.pixels
    if still.alpha and suffix not in _CLEAR:
        notes.say(f"transparency is left out: {suffix} files are opaque")
        pixels = pixels[..., :-1]
    if pixels.dtype == np.uint16 and suffix not in _DEEP:
        notes.say(f"16 bits a sample become 8: {suffix} files hold no more")
        pixels = ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    kinds, blocks = [], []
    if still.profile:
        if suffix in _WITH_PROFILE:
            kinds.append(cv2.IMAGE_METADATA_ICCP)
            blocks.append(np.frombuffer(still.profile, np.uint8))
        else:
            notes.say(f"the colour profile is left out: it is not written into {suffix} files")
    if still.exif and suffix in (*_WITH_PROFILE, ".avif"):
        kinds.append(cv2.IMAGE_METADATA_EXIF)
        blocks.append(np.frombuffer(still.exif, np.uint8))
    try:
        done, data = cv2.imencodeWithMetadata(
            suffix, _bgr(pixels), kinds, blocks, _QUALITY.get(suffix, [])
        )
    except cv2.error:
        done, data = False, None
    if not done or data is None:
        raise MediaError(
            f"encoding {shown(path)}: this machine's OpenCV writes no {suffix} of "
            f"{size_of(pixels)}, {pixels.shape[2]} channels",
            found=suffix,
        )
    return data.tobytes()


def check_still_size(size: Size, path: Path) -> None:
    """Raises MediaError for what the form cannot hold, before any work."""
    largest = _LARGEST.get(path.suffix.lower(), 1_000_000)
    if max(size.width, size.height) > largest or size.pixels > _MOST_PIXELS:
        raise MediaError(
            f"writing {shown(path)}: the result would be {size}; no side of such a file may be "
            f"over {largest}, and {_MOST_PIXELS} pixels are the most",
            found=str(size),
        )


def pages_of(path: Path) -> int:
    """How many pictures a TIFF holds."""
    try:
        return cv2.imcount(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return 1


def size_of(pixels: Pixels) -> Size:
    return Size(pixels.shape[1], pixels.shape[0])


def orientation(exif: bytes) -> int:
    """EXIF's orientation, 1 (upright) to 8; 1 where none is written or the block is broken."""
    place = _orientation_at(exif)
    if place is None:
        return 1
    at, order = place
    value: int = struct.unpack_from(order + "H", exif, at)[0]
    return value if 1 <= value <= 8 else 1


def _decode(data: bytes) -> tuple[Pixels | None, list[int], list[Any]]:
    buffer = np.frombuffer(data, np.uint8)
    if not len(buffer):
        return None, [], []
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # we say what is wrong
    try:
        found, kinds, blocks = cv2.imdecodeWithMetadata(buffer, flags=cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None, [], []
    finally:
        cv2.utils.logging.setLogLevel(level)
    if found is None or found.size == 0:
        return _what_is_there(data), [], []
    return found, list(kinds), list(blocks)


def _what_is_there(data: bytes) -> Pixels | None:
    """BGR of a picture that was cut off, by FFmpeg, which decodes as far as it goes."""
    try:
        with av.open(io.BytesIO(data), "r") as container:
            for frame in container.decode(video=0):
                pixels: Pixels = frame.to_ndarray(format="bgr24")
                return pixels
    except (av.FFmpegError, IndexError, ValueError):
        pass  # nothing of it is there: the caller says so
    return None


def _rgb(bgr: Pixels) -> Pixels:
    if bgr.shape[2] == 3:
        return bgr[..., ::-1]
    return bgr[..., (2, 1, 0, 3)] if bgr.shape[2] == 4 else bgr


def _bgr(rgb: Pixels) -> Pixels:
    if rgb.shape[2] == 2:  # grey and alpha: OpenCV writes it as four channels
        return np.ascontiguousarray(rgb[..., (0, 0, 0, 1)])
    return np.ascontiguousarray(_rgb(rgb))


def _orientation_at(exif: bytes) -> tuple[int, str] | None:
    """Where the value lies in the block, and its byte order."""
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    try:
        if order is None:
            return None
        (first,) = struct.unpack_from(order + "I", exif, start + 4)
        (count,) = struct.unpack_from(order + "H", exif, start + first)
        for number in range(count):
            entry = start + first + 2 + 12 * number
            if struct.unpack_from(order + "H", exif, entry)[0] == _EXIF_ORIENTATION:
                struct.unpack_from(order + "H", exif, entry + 8)
                return entry + 8, order
    except struct.error:
        return None
    return None


def _set_upright(exif: bytes) -> bytes:
    place = _orientation_at(exif)
    if place is None:
        return exif
    block = bytearray(exif)
    struct.pack_into(place[1] + "H", block, place[0], 1)
    return bytes(block)


def _is_whole(kind: str, data: bytes) -> bool:
    """Whether the end mark of its form is there: decoders fill up what lacks without a word."""
    if kind == "jpeg":
        return b"\xff\xd9" in data[-4096:]
    if kind in ("png", "apng"):
        return b"IEND" in data[-4096:]
    if kind.startswith("webp"):
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    return True
