"""The tiny model inside the engine's chain: every frame finds its time, whatever the size."""

from __future__ import annotations

import numpy as np
import pytest

from streamlift.clock import ManualClock
from streamlift.engine.chain import UpscaleChain, Upscaled
from streamlift.frames import Colour, Frame, Planes, Size, Stabilise
from streamlift.stamp import draw_stamp, read_stamp
from streamlift.upscalers.flashvsr.tiny import create_tiny_random


@pytest.mark.long
@pytest.mark.parametrize("start", ["primed", "full"])
def test_stamps_and_times_stay_together(start: str) -> None:
    upscaler = create_tiny_random("cpu", {"start": start})
    chain = UpscaleChain(upscaler, "cpu", Stabilise.OFF, clock=ManualClock())
    done = [out for number in range(30) for out in chain.push(_frame(number))]
    done.extend(chain.finish())
    assert [out.frame.pts for out in done] == [3600 * number for number in range(30)]
    for number, out in enumerate(done):
        assert out.planes.size == Size(300, 264)
        stamp = read_stamp(out.planes.y, scale=2)
        assert stamp is not None
        assert stamp.number == number


def test_a_stream_that_was_parked_goes_on_as_if_it_had_not_been() -> None:
    upscaler = create_tiny_random("cpu", {})
    plain, parked = (
        UpscaleChain(upscaler, "cpu", Stabilise.OFF, clock=ManualClock()) for _ in range(2)
    )
    parked.park()  # before there is anything to park
    expected: list[Upscaled] = []
    found: list[Upscaled] = []
    for number in range(20):
        expected += plain.push(_frame(number))
        found += parked.push(_frame(number))
        if number in (0, 5, 12):
            parked.park()
            parked.park()
    expected += plain.finish()
    parked.park()
    found += parked.finish()
    assert len(found) == len(expected) == 20
    for one, other in zip(found, expected, strict=True):
        assert one.frame.pts == other.frame.pts
        assert np.array_equal(one.planes.y, other.planes.y)


def _frame(number: int) -> Frame:
    """150 x 132, which is no multiple of 64."""
    luma = np.full((132, 150), 100, np.uint8)
    draw_stamp(luma, number, now_s=number / 25)
    grey = np.full((66, 75), 128, np.uint8)
    return Frame(3600 * number, Size(150, 132), Planes(luma, grey, grey), Colour(), 0.0)
