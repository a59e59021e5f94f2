"""Publishes the numpy frames of a generator: publish_frames.py [WHIP address [bursts]]"""

import asyncio
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

import streamlift.client

FPS = 16


def generate(bursts: int) -> Iterator[list[npt.NDArray[np.float32]]]:
    """As LongLive gives them: 9 frames, then 12 at once; here a light that moves over a ramp."""
    number = 0
    y, x = np.mgrid[0:256, 0:256].astype(np.float32)
    for burst in range(bursts):
        frames = []
        for _ in range(12 if burst else 9):
            light = np.exp(-((x - 64 - number % 128) ** 2 + (y - 128) ** 2) / 800)
            frames.append(np.stack([x / 255, y / 255, light], axis=2))
            number += 1
        yield frames


async def main(url: str, bursts: int) -> None:
    async with streamlift.client.publish(url) as publication:
        for frames in generate(bursts):
            for frame in frames:
                await publication.send(frame)
            await asyncio.sleep(len(frames) / FPS)  # the generator computes
    print(f"sent {publication.sent} frames, dropped {sum(publication.dropped.values())}")


if __name__ == "__main__":
    arguments = dict(enumerate(sys.argv))
    asyncio.run(
        main(arguments.get(1, "http://127.0.0.1:8080/whip/mine"), int(arguments.get(2, 20)))
    )
