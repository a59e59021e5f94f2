"""Opus to AAC, for servers that take no other sound: decoded, kept on its timestamps, encoded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from streamlift.frames import CodedAudio

__all__ = ["AacSound"]

logger = logging.getLogger(__name__)

RATE_HZ = 48_000
BIT_RATE_BPS = 128_000
_LONGEST_FILLED = RATE_HZ
"""Samples: a shorter hole becomes silence, after a longer one time goes on without."""
_JITTER = RATE_HZ // 100


class AacSound:
    """Stereo AAC-LC at 48 kHz; pts in samples, as those of the Opus packets. For one thread."""

    def __init__(self) -> None:
        self._decoder = av.CodecContext.create("opus", "r")
        assert isinstance(self._decoder, AudioCodecContext)
        self._decoder.sample_rate = RATE_HZ
        self._decoder.layout = "stereo"
        self._resampler = AudioResampler(format="fltp", layout="stereo", rate=RATE_HZ)
        self._encoder = av.CodecContext.create("aac", "w")
        assert isinstance(self._encoder, AudioCodecContext)
        self._encoder.sample_rate = RATE_HZ
        self._encoder.layout = "stereo"
        self._encoder.format = "fltp"
        self._encoder.bit_rate = BIT_RATE_BPS
        self._encoder.open()
        self._samples = np.zeros((2, 0), np.float32)
        self._at: int | None = None
        """pts of the first of the samples that wait for a whole frame."""
        self.refused = 0
        """Packets that could not be decoded."""

    @property
    def config(self) -> bytes:
        """The AudioSpecificConfig (ISO/IEC 14496-3)."""
        return bytes(self._encoder.extradata or b"")

    def take(self, packet: CodedAudio) -> Sequence[tuple[int, bytes]]:
        """The frames that are whole now: pts and data."""
        try:
            heard = self._decoded(packet.data)
        except av.FFmpegError as error:
            self.refused += 1
            logger.debug("a packet of sound could not be decoded: %s", error)
            return ()
        self._append(packet.pts, heard)
        frames = []
        size = self._encoder.frame_size
        while self._samples.shape[1] >= size:
            frames += self._encoded(self._samples[:, :size])
            self._samples = self._samples[:, size:]
        return frames

    def _decoded(self, data: bytes) -> Any:
        parts = [
            part.to_ndarray()
            for frame in self._decoder.decode(av.Packet(data))
            for part in self._resampler.resample(frame)
        ]
        return np.concatenate([np.zeros((2, 0), np.float32), *parts], axis=1)

    def _append(self, pts: int, heard: Any) -> None:
        waiting = self._samples.shape[1]
        if self._at is None:
            self._at = pts
        hole = pts - (self._at + waiting)
        if hole > _LONGEST_FILLED:
            self._at, self._samples = pts, self._samples[:, :0]
        elif hole > _JITTER:
            silence = np.zeros((2, hole), np.float32)
            self._samples = np.concatenate([self._samples, silence], axis=1)
        self._samples = np.concatenate([self._samples, heard], axis=1)

    def _encoded(self, samples: Any) -> list[tuple[int, bytes]]:
        assert self._at is not None
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format="fltp", layout="stereo"
        )
        frame.sample_rate, frame.pts = RATE_HZ, self._at
        self._at += samples.shape[1]
        return [(packet.pts or 0, bytes(packet)) for packet in self._encoder.encode(frame)]
