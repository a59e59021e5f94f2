"""The sound of a URL pull, decoded and coded anew."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from streamlift.media.remote.url.sound import OpusSound


class Changing:
    """A stream whose decoder gives these frames, one for each packet."""

    def __init__(self, frames: list[av.AudioFrame]) -> None:
        self.codec_context = self
        self.codec = self
        self.name = "aac"
        self.channels = 2
        self._frames = frames

    def decode(self, _: object) -> list[av.AudioFrame]:
        return [self._frames.pop(0)]


def silence(layout: str, channels: int, rate_hz: int, at_s: float) -> av.AudioFrame:
    samples = np.zeros((channels, rate_hz // 10), np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
    frame.sample_rate, frame.time_base = rate_hz, Fraction(1, 1000)
    frame.pts = round(1000 * at_s)
    return frame


def test_channels_and_rate_may_change_in_mid_stream() -> None:
    """As television does at each advert."""
    kinds = [("stereo", 2, 48_000)] * 3 + [("5.1", 6, 48_000)] * 3 + [("stereo", 2, 44_100)] * 3
    frames = [silence(*kind, at_s=n / 10) for n, kind in enumerate(kinds)]
    sound = OpusSound(Changing(frames))  # type: ignore[arg-type]
    packet = av.Packet(b"x")
    times_s = [time_s for _ in kinds for time_s, _ in sound.packets(packet)]
    assert len(times_s) > 35  # of 45
    assert times_s == sorted(times_s)
    assert times_s[-1] > 0.8
