"""Has the service fetch what a Scope server generates, and changes the prompt:
pull_from_scope.py [service [scope]]   (sources.allowed_hosts must list Scope's host)"""

import asyncio
import sys

from streamlift.client import Client

NAME = "gen"


async def main(url: str, scope: str) -> None:
    async with Client(url) as client:
        await client.pull_scope(NAME, scope, pipeline="longlive", prompts=["a fox in the snow"])
        state = ""
        while state not in ("live", "failed"):
            source = await client.source(NAME)
            if source.state != state:
                print(f"{source.state} {source.reason}", flush=True)
            state = source.state
            await asyncio.sleep(0.5)
        if state == "live":
            await client.change_source(NAME, prompts=["a bear in the rain"])
            async with client.watch(NAME, wait=True) as pictures:
                picture = await anext(pictures)
                print(f"the first picture is {picture.size}", flush=True)
        await client.close(NAME)


if __name__ == "__main__":
    arguments = dict(enumerate(sys.argv))
    asyncio.run(
        main(
            arguments.get(1, "http://127.0.0.1:8080"),
            arguments.get(2, "http://localhost:8000"),
        )
    )
