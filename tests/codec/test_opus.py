"""Sound to Opus packets: what is taken, and that no piece spoils those after it."""

from __future__ import annotations

from itertools import pairwise

import av
import numpy as np
import numpy.typing as npt
import pytest

from streamlift.codec.opus import OPUS_HZ, OpusEncoder, stereo
from streamlift.errors import MediaError


def decoded_samples(packets: list[bytes]) -> int:
    context = av.CodecContext.create("libopus", "r")
    return sum(frame.samples for data in packets for frame in context.decode(av.Packet(data)))


def test_pieces_may_be_mono_or_stereo_by_turns() -> None:
    encoder = OpusEncoder(OPUS_HZ)
    pieces = [np.zeros(4800), np.zeros((4800, 2)), np.zeros((4800, 1)), np.zeros(0), np.zeros(4800)]
    packets = [packet for piece in pieces for packet in encoder.encode(piece)]
    assert {b.pts - a.pts for a, b in pairwise(packets)} == {960}
    assert decoded_samples([packet.data for packet in packets]) >= 3 * 4800


@pytest.mark.parametrize(
    "samples",
    [np.zeros(3, np.int32), np.zeros((4, 3)), np.zeros((1, 2, 3)), np.array([0.0, np.nan])],
)
def test_what_is_no_sound_is_refused(samples: npt.NDArray[np.generic]) -> None:
    with pytest.raises(MediaError):
        stereo(samples)


def test_a_copy_is_made() -> None:
    samples = np.zeros((10, 2), np.int16)
    copied = stereo(samples)
    samples[:] = 7
    assert not copied.any()
