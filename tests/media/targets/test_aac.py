"""Opus to AAC: the same tone, at the same time, whatever happens to packets in between."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import av
import numpy as np
import pytest
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame

from streamlift.frames import CodedAudio
from streamlift.media.targets.aac import AacSound

RATE_HZ, TONE_HZ, PACKET = 48_000, 1000, 960


def opus(packets: int) -> list[CodedAudio]:
    """A tone in 20 ms packets."""
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = RATE_HZ, "stereo", "flt"
    times = np.arange(packets * PACKET) / RATE_HZ
    wave = (0.4 * np.sin(2 * np.pi * TONE_HZ * times)).astype(np.float32)
    coded = []
    for n in range(packets):
        part = np.repeat(wave[n * PACKET : (n + 1) * PACKET], 2).reshape(1, -1)
        frame = AudioFrame.from_ndarray(part, format="flt", layout="stereo")
        frame.sample_rate, frame.pts = RATE_HZ, n * PACKET
        coded += [bytes(packet) for packet in encoder.encode(frame)]
    return [CodedAudio(n * PACKET, data, n * 0.02) for n, data in enumerate(coded)]


def through(packets: Sequence[CodedAudio]) -> list[tuple[int, bytes]]:
    sound = AacSound()
    assert sound.config == b"\x11\x90\x56\xe5\x00" or sound.config[:2] == b"\x11\x90"
    return [frame for packet in packets for frame in sound.take(packet)]


def heard(frames: Sequence[tuple[int, bytes]]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    decoder = av.CodecContext.create("aac", "r")
    assert isinstance(decoder, AudioCodecContext)
    decoder.extradata = AacSound().config
    parts = [f.to_ndarray() for _, data in frames for f in decoder.decode(av.Packet(data))]
    return np.concatenate(parts, axis=1)


def test_a_tone_stays_the_same_tone_at_its_own_times() -> None:
    frames = through(opus(60))
    times = [pts for pts, _ in frames]
    assert all(b - a == 1024 for a, b in pairwise(times))
    assert -2048 <= times[0] <= 0  # an encoder begins with what is before the first sample
    samples = heard(frames)
    assert samples.shape[0] == 2
    middle = samples[0, RATE_HZ // 2 : RATE_HZ // 2 + 9600]
    spectrum = np.abs(np.fft.rfft(middle))
    assert np.argmax(spectrum) * RATE_HZ / 9600 == TONE_HZ
    assert 0.2 < np.abs(middle).max() < 0.6


def test_a_short_hole_is_silence_and_a_long_one_is_left_out() -> None:
    packets = opus(60)
    short = through([*packets[:20], *packets[30:]])
    assert all(b - a == 1024 for a, b in pairwise(pts for pts, _ in short))
    assert len(short) >= len(through(packets)) - 1
    later = [CodedAudio(p.pts + 10 * RATE_HZ, p.data, p.arrived_s) for p in packets[20:]]
    jumped = [b - a for a, b in pairwise(pts for pts, _ in through([*packets[:20], *later]))]
    assert [step for step in jumped if step != 1024] == [pytest.approx(10 * RATE_HZ, rel=0.01)]


def test_garbage_costs_its_packet_and_no_more() -> None:
    sound = AacSound()
    packets = opus(30)
    packets[10] = CodedAudio(packets[10].pts, b"\xff" * 7, 0.2)
    frames = [frame for packet in packets for frame in sound.take(packet)]
    assert sound.refused <= 1
    assert len(frames) >= 25
