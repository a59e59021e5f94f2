"""Watches a stream as numpy frames: watch_frames.py [WHEP address [pictures]]"""

import asyncio
import sys

import streamlift.client


async def main(url: str, count: int) -> None:
    async with streamlift.client.watch(url, wait=True) as pictures:
        async for picture in pictures:
            width, height = picture.size
            print(f"{picture.time_s:6.2f} s {width}x{height} mean {picture.rgb.mean():.1f}")
            count -= 1
            if count == 0:
                break


if __name__ == "__main__":
    arguments = dict(enumerate(sys.argv))
    asyncio.run(
        main(arguments.get(1, "http://127.0.0.1:8080/whep/demo"), int(arguments.get(2, 250)))
    )
