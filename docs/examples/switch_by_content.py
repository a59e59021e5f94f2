"""Gives detailed pictures to one backend and flat ones to another, cheaper one:
switch_by_content.py [service [stream [detailed [flat [switches]]]]]"""

import asyncio
import sys

import numpy as np

from streamlift.client import Client, Picture

DETAILED = 4.0
"""Mean difference of neighbouring pixels, in levels of 255."""
OFTEN = 25
"""Look at each 25th picture; so a switch is at least a second old before the next."""


def detail(picture: Picture) -> float:
    return float(np.abs(np.diff(picture.rgb.astype(np.int16), axis=1)).mean())


async def main(url: str, stream: str, detailed: str, flat: str, switches: int) -> None:
    async with Client(url) as client, client.watch(stream, "source", wait=True) as pictures:
        number = 0
        async for picture in pictures:
            number += 1
            if number % OFTEN != 1:
                continue
            wanted = detailed if detail(picture) > DETAILED else flat
            now = (await client.stream(stream)).backend
            if wanted == now:
                continue
            await client.switch(stream, wanted)
            print(f"detail {detail(picture):.1f}: from {now} to {wanted}", flush=True)
            switches -= 1
            if switches == 0:
                return


if __name__ == "__main__":
    arguments = dict(enumerate(sys.argv))
    asyncio.run(
        main(
            arguments.get(1, "http://127.0.0.1:8080"),
            arguments.get(2, "demo"),
            arguments.get(3, "compact"),
            arguments.get(4, "bicubic"),
            int(arguments.get(5, 0)),
        )
    )
