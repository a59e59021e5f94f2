"""A stream's sound as Opus at 48 kHz: as it is if it is Opus, else decoded and coded anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
from av.audio.stream import AudioStream

__all__ = ["CODECS", "OpusSound"]

CODECS = (
    *("opus", "libopus", "aac", "aac_latm", "mp3float", "mp3", "mp2float", "mp2", "mp1float"),
    *("ac3", "eac3", "vorbis", "flac", "pcm_alaw", "pcm_mulaw"),
    *("pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s32le", "pcm_f32le"),
)
"""FFmpeg's names of the decoders that are used."""
RATE_HZ = 48_000
_PACKET = 960
"""Samples: 20 ms."""
_BITRATE_BPS = 96_000
_GAP_S = 0.1
"""What is further off than that from where the sound had come to is a gap, not rounding."""
_MOST_PACKET = 4096
_PASSED_CHANNELS = 2
"""WebRTC's Opus is mono or stereo (RFC 7587); more channels are coded otherwise."""


class OpusSound:
    """Packets in, (time in seconds on the media's clock, Opus packet) out."""

    def __init__(self, stream: AudioStream) -> None:
        """The codec must be one of `CODECS`."""
        self._context = stream.codec_context
        opus = self._context.codec.name in ("opus", "libopus")
        self._passes = opus and self._context.channels <= _PASSED_CHANNELS
        self._base_s: float | None = None
        self._coded = 0
        self._heard = 0
        self._coder: Any = None
        self._resampler: av.AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None
        """Format, channels and rate of what is decoded now."""

    def packets(self, packet: av.Packet[Any]) -> Iterator[tuple[float, bytes]]:
        """What cannot be decoded is left out: Opus conceals it."""
        if self._passes:
            if packet.size and packet.pts is not None and packet.size <= _MOST_PACKET:
                yield float(packet.pts * packet.time_base), bytes(packet)
            return
        try:
            frames = self._context.decode(packet if packet.size else None)
        except av.FFmpegError:
            return
        for frame in frames:
            yield from self._code(frame)

    def _code(self, frame: av.AudioFrame) -> Iterator[tuple[float, bytes]]:
        if frame.sample_rate <= 0 or not frame.samples:
            return
        expected_s = None
        if self._base_s is not None:
            expected_s = self._base_s + self._heard / RATE_HZ
        time_s = expected_s
        if frame.pts is not None and frame.time_base is not None:
            time_s = float(frame.pts * frame.time_base)
        if time_s is None:
            time_s = 0.0
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if expected_s is None or abs(time_s - expected_s) > _GAP_S or kind != self._kind:
            self._kind = kind  # a resampler takes one only; television changes it in mid-stream
            self._begin(time_s)
        self._heard += round(frame.samples * RATE_HZ / frame.sample_rate)
        frame.pts = None
        assert self._resampler is not None
        for piece in self._resampler.resample(frame):
            piece.pts = None
            for coded in self._coder.encode(piece):
                assert self._base_s is not None
                yield self._base_s + self._coded * _PACKET / RATE_HZ, bytes(coded)
                self._coded += 1

    def _begin(self, time_s: float) -> None:
        """Sound goes on at that time, with nothing left of what was before."""
        self._base_s, self._coded, self._heard = time_s, 0, 0
        self._resampler = av.AudioResampler("s16", "stereo", RATE_HZ, _PACKET)
        coder: Any = av.CodecContext.create("libopus", "w")
        coder.sample_rate, coder.layout, coder.format = RATE_HZ, "stereo", "s16"
        coder.bit_rate = _BITRATE_BPS
        coder.open()
        self._coder = coder
