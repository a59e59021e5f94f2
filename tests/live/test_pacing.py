"""An even picture at the viewer, however unevenly frames come in and out of the model."""

from __future__ import annotations

import asyncio
import itertools
from itertools import pairwise

import pytest
from tests.clips import picture
from tests.machine import in_time
from tests.serving import light, serving
from tests.staged import toy
from tests.stamped import TINY, lost, viewing

from streamlift.clock import MonotonicClock
from streamlift.media.files.clips import paced
from streamlift.media.remote.client import WhipClient

pytestmark = pytest.mark.peer

BURST = 12
"""As many frames as LongLive makes at once."""
LEARNING_S = 6.0
WATCHED_S = 4.0
EVEN_MS = 1.5 * 40
STEPS = toy("steps", first=1, step=8, lag=4)
"""FlashVSR's steps."""


async def test_bursts_of_twelve_in_and_steps_of_eight_out_come_out_even() -> None:
    async def run() -> list[str]:
        clock = MonotonicClock()
        client = WhipClient(TINY, 25, 400_000, clock=clock)
        pictures = (picture(TINY, number, stamped=False) for number in itertools.count())
        bursts = paced(pictures, 25, clock=clock, stamp=True, burst=BURST)
        async with serving(light(default_backend="steps", backends=(STEPS,))) as service:
            publishing = asyncio.create_task(
                client.run(service.whip(), None, bursts, on_live=lambda: None)
            )
            try:
                await service.live()
                async with viewing(service.whep()) as viewer:
                    await asyncio.sleep(LEARNING_S)
                    since_s = clock.now_s()
                    await asyncio.sleep(WATCHED_S)
                    viewer.assert_unbroken()
                    seen = viewer.since(since_s)
            finally:
                publishing.cancel()
                await asyncio.wait([publishing])
        spacings_ms = sorted(1000 * (b.at_s - a.at_s) for a, b in pairwise(seen))
        p95_ms = spacings_ms[int(0.95 * len(spacings_ms))]
        found = [f"{lost(seen)} lost"] if lost(seen) else []
        if p95_ms > EVEN_MS:
            found.append(f"p95 of spacing {p95_ms:.0f} ms, max {spacings_ms[-1]:.0f} ms")
        return found

    await in_time(run)
