"""Sound as samples to Opus packets (RFC 6716), 20 ms each."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.audio.codeccontext import AudioCodecContext
from av.audio.resampler import AudioResampler

from streamlift.errors import MediaError

__all__ = ["OPUS_HZ", "OpusEncoder", "OpusPacket", "stereo"]

OPUS_HZ = 48_000
_BITRATE_BPS = 96_000
_SAMPLES = OPUS_HZ // 50


@dataclass(frozen=True, slots=True)
class OpusPacket:
    """pts at 48 kHz, counted from the first sample that was given."""

    pts: int
    data: bytes


class OpusEncoder:
    """Takes pieces of any length at one rate; used by one thread at a time."""

    def __init__(self, rate_hz: int) -> None:
        """Raises MediaError for a rate that no sound has."""
        if not 8_000 <= rate_hz <= 192_000:
            raise MediaError("no such sample rate", found=rate_hz, expected="8000 to 192000")
        self._rate_hz = rate_hz
        self._given = 0
        context = av.CodecContext.create("libopus", "w")
        assert isinstance(context, AudioCodecContext)
        context.sample_rate = OPUS_HZ
        context.layout = "stereo"
        context.format = "s16"
        context.bit_rate = _BITRATE_BPS
        context.time_base = Fraction(1, OPUS_HZ)
        self._context = context
        self._resampler = AudioResampler("s16", "stereo", OPUS_HZ, frame_size=_SAMPLES)

    def encode(self, samples: npt.ArrayLike) -> list[OpusPacket]:
        """The packets that are complete with these samples; see `stereo` for what they may be."""
        levels = stereo(samples)
        if not len(levels):
            return []
        frame = av.AudioFrame.from_ndarray(levels.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate = self._rate_hz
        frame.time_base = Fraction(1, self._rate_hz)
        frame.pts = self._given
        self._given += len(levels)
        return [
            OpusPacket(packet.pts or 0, bytes(packet))
            for piece in self._resampler.resample(frame)
            for packet in self._context.encode(piece)
        ]


def stereo(samples: npt.ArrayLike) -> npt.NDArray[np.int16]:
    """A copy as (n, 2) int16.

    From (n,) or (n, 1) for mono or (n, 2) for stereo, float from -1 to 1 or int16. Raises
    MediaError for any other shape or type, and for what is no number.
    """
    levels = _levels(samples)
    return np.repeat(levels, 2, axis=1) if levels.shape[1] == 1 else levels.copy()


def _levels(samples: npt.ArrayLike) -> npt.NDArray[np.int16]:
    given = np.asarray(samples)
    if given.ndim == 1:
        given = given[:, None]
    if given.ndim != 2 or given.shape[1] not in (1, 2):
        raise MediaError(
            "these are no samples of sound", found=given.shape, expected="(n,) or (n, 2)"
        )
    if given.dtype == np.int16:
        return np.ascontiguousarray(given)
    if not np.issubdtype(given.dtype, np.floating):
        raise MediaError(
            "samples of this type are not understood",
            found=str(given.dtype),
            expected="int16, float",
        )
    if not np.isfinite(given).all():
        raise MediaError("sound holds what is no number", expected="-1 to 1")
    return np.clip(np.rint(given * 32767.0), -32768, 32767).astype(np.int16)
