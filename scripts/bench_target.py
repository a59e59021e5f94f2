"""CPU ms of bringing an upscaled picture to a target size, beside those of encoding it there.

python -m scripts.bench_target
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import cv2
import numpy as np

from streamlift.clock import VIDEO_CLOCK_HZ
from streamlift.codec import H264Encoder
from streamlift.codec.resample import Resampler
from streamlift.frames import Colour, Fit, Planes, Size
from streamlift.sizes import placed_in

UPSCALED = Size(1024, 1024)
TARGETS = (Size(720, 720), Size(768, 768), Size(1080, 1080), Size(1280, 1280), Size(1280, 720))
FRAMES = 24


def main() -> int:
    cv2.setNumThreads(1)
    pictures = [_picture(number) for number in range(FRAMES)]
    print("| target | FFmpeg's Lanczos | OpenCV's Lanczos or mean | encoding there, superfast |")
    print("|---|---|---|---|")
    for target in TARGETS:
        layout = placed_in(UPSCALED, target, Fit.CONTAIN)
        resampler = Resampler()
        shaped = [resampler.laid_out(one, layout, Colour()) for one in pictures]
        ours = _ms(lambda n: resampler.laid_out(pictures[n], layout, Colour()))  # noqa: B023
        theirs = _ms(lambda n: _opencv(pictures[n], layout.place.size))  # noqa: B023
        encoder = H264Encoder(target, 25, 6_000_000)
        coding = _ms(
            lambda n: encoder.encode(shaped[n], n * VIDEO_CLOCK_HZ // 25, keyframe=n == 0)  # noqa: B023
        )
        print(f"| {target} | {ours:.1f} | {theirs:.1f} | {coding:.1f} |", flush=True)
    return 0


def _picture(number: int) -> Planes:
    rng = np.random.default_rng(0)
    rough = rng.uniform(30, 220, (UPSCALED.height // 16, UPSCALED.width // 16)).astype(np.float32)
    smooth = cv2.resize(rough, (UPSCALED.width, UPSCALED.height), interpolation=cv2.INTER_CUBIC)
    y = np.clip(smooth + rng.normal(0, 3, smooth.shape), 16, 235).astype(np.uint8)
    half = np.full((UPSCALED.height // 2, UPSCALED.width // 2), 128, np.uint8)
    return Planes(np.ascontiguousarray(np.roll(y, (number, 2 * number), (0, 1))), half, half)


def _opencv(planes: Planes, size: Size) -> None:
    shrinks = size.width < UPSCALED.width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
    for plane, part in zip(planes.each(), (1, 2, 2), strict=True):
        cv2.resize(plane, (size.width // part, size.height // part), interpolation=how)


def _ms(work: Callable[[int], object]) -> float:
    """Median CPU ms of the process, all its threads."""
    times = []
    for number in range(FRAMES):
        began_s = time.process_time()
        work(number)
        times.append(1000 * (time.process_time() - began_s))
    return median(times[1:])


if __name__ == "__main__":
    sys.exit(main())
