"""Prints what happens on a service, through its restarts: follow_events.py [service [events]]"""

import asyncio
import sys

from streamlift.client import Client


async def main(url: str, count: int) -> None:
    async with Client(url) as client:
        async for event in client.events(after=0):
            gap = "" if event.gap_ms is None else f", no new picture for {event.gap_ms:.0f} ms"
            print(
                f"{event.seq} {event.stream or '-'} {event.kind}: {event.before} -> {event.after}"
                f"{gap} {event.reason}",
                flush=True,
            )
            count -= 1
            if count == 0:
                return


if __name__ == "__main__":
    arguments = dict(enumerate(sys.argv))
    asyncio.run(main(arguments.get(1, "http://127.0.0.1:8080"), int(arguments.get(2, 0))))
